package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/zkq/zkq/bench/load"
)

// workers are processes that work a queue off together: they say how many entries they have finished until they are told
// to stop.
type workers struct {
	all []*worker
}

type worker struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	says   chan said
	last   said
	errors bytes.Buffer
}

// said is a line of a worker, as the consumer and kazooworker.py write it.
type said struct {
	N         int     `json:"n"`
	Seconds   float64 `json:"seconds"`
	Ended     bool    `json:"ended"`
	Lost      int     `json:"lost"`
	Peak      int     `json:"peak"`
	Anonymous int     `json:"anonymous"`
}

//go:embed kazooworker.py
var kazooScript string

// kazooWorkers are processes of kazoo with some threads each.
func (b *bench) kazooWorkers(v *service, root, queue, act string, processes, threads, puts int) (*workers, error) {
	python := ""
	for _, p := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(p, "-c", "import kazoo").Run() == nil {
			python = p
			break
		}
	}
	if python == "" {
		return nil, fmt.Errorf("kazoo: %w: make deps", errMissing)
	}
	return launch(processes, python, "-c", kazooScript, v.address, root+queue, act, strconv.Itoa(threads), strconv.Itoa(puts))
}

// consumers are processes of ours.
func (b *bench) consumers(v *service, root, queue string, processes, threads, batch int) (*workers, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	consumer := filepath.Join(filepath.Dir(self), "consumer")
	return launch(processes, consumer, v.kind, v.address, root, queue, strconv.Itoa(threads), strconv.Itoa(batch))
}

// launch starts processes, which are ready when it returns.
func launch(n int, name string, args ...string) (*workers, error) {
	ws := &workers{}
	for range n {
		w := &worker{cmd: exec.Command(name, args...), says: make(chan said)}
		w.cmd.Stderr = &w.errors
		w.cmd.SysProcAttr = diesWithParent()
		in, err := w.cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := w.cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := w.cmd.Start(); err != nil {
			ws.kill()
			return nil, err
		}
		w.in = in
		ws.all = append(ws.all, w)
		go func() {
			defer close(w.says)
			lines := bufio.NewScanner(out)
			if !lines.Scan() || lines.Text() != "ready" {
				return
			}
			w.says <- said{}
			for lines.Scan() {
				var s said
				if json.Unmarshal(lines.Bytes(), &s) == nil {
					w.says <- s
				}
			}
		}()
	}
	for _, w := range ws.all {
		select {
		case _, ok := <-w.says:
			if !ok {
				ws.kill()
				return nil, fmt.Errorf("a worker did not start: %s", &w.errors)
			}
		case <-time.After(40 * time.Second):
			ws.kill()
			return nil, errors.New("a worker is not ready after 40 s")
		}
	}
	return ws, nil
}

// work has them work until they have finished most entries, or the time is over.
func (ws *workers) work(ctx context.Context, most int, limit time.Duration) (load.Done, error) {
	for _, w := range ws.all {
		fmt.Fprintln(w.in, "go")
	}
	end := time.Now().Add(limit)
	for told := false; ; {
		n, ended := 0, 0
		for _, w := range ws.all {
			if w.last.Ended {
				ended++
				n += w.last.N
				continue
			}
			select {
			case s, ok := <-w.says:
				if !ok {
					w.cmd.Wait()
					return load.Done{}, fmt.Errorf("a worker ended before its work did: %s", &w.errors)
				}
				w.last = s
			case <-time.After(30 * time.Second):
				return load.Done{}, errors.New("a worker says nothing")
			case <-ctx.Done():
				return load.Done{}, ctx.Err()
			}
			n += w.last.N
		}
		if ended == len(ws.all) {
			break
		}
		if !told && (n >= most || time.Now().After(end)) {
			told = true
			for _, w := range ws.all {
				fmt.Fprintln(w.in, "stop")
			}
		}
	}
	var d load.Done
	for _, w := range ws.all {
		d.N += w.last.N
		d.Took = max(d.Took, time.Duration(w.last.Seconds*float64(time.Second)))
	}
	return d, nil
}

// kill ends the processes.
func (ws *workers) kill() {
	for _, w := range ws.all {
		w.cmd.Process.Kill()
		for range w.says { // what it had to say
		}
		w.cmd.Wait()
	}
}
