package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

// fleetWorkers is the number of workers in each process of the contention measurement.
const fleetWorkers = 4

// benchWorkerVerb is the hidden verb that bench's worker processes run. The process
// prints "ready" and starts work at the first line on stdin. It reports its finished
// entries every 10 ms. The second line, or the end of stdin, stops it; its last report
// counts the claims that it lost.
func benchWorkerVerb() verb {
	return verb{name: "__bench", args: "QUEUE WORKERS", hidden: true, run: runBenchWorker}
}

// fleetReport is one line of JSON that a worker process prints.
type fleetReport struct {
	Finished int     `json:"finished"`
	Seconds  float64 `json:"seconds"` // from the start to the last finish
	Ended    bool    `json:"ended"`
	Lost     int64   `json:"lost"`
}

func runBenchWorker(ctx context.Context, k *call) error {
	if len(k.words) != 2 {
		return usageError("", "it is for zkq bench alone")
	}
	name, err := queueName(k.words[0])
	if err != nil {
		return err
	}
	workers, err := parseDecimal(k.words[1], 1, 1000)
	if err != nil {
		return usageError("", "workers: %w", err)
	}
	if k.settings, err = readSettings(k.flags, k.env); err != nil {
		return err
	}
	k.queue = name
	return k.withCoordinator(ctx, func(c coord.Coordinator) error {
		counting := newCountingCoordinator(c)
		q := k.newLocking(counting, name)
		defer q.Close()
		if err := k.out.text("ready\n"); err != nil {
			return err
		}
		in := bufio.NewScanner(k.stdin)
		if !in.Scan() {
			return nil
		}
		working, stop := context.WithCancel(ctx)
		defer stop()
		go func() { // ends when the process exits, at the latest
			in.Scan()
			stop()
		}()
		var n, last atomic.Int64
		begun := time.Now()
		ended := make(chan error, 1)
		go func() {
			ended <- takeAndFinish(working, q, workers, 1, func(*zkq.Held) {}, func(m int) {
				n.Add(int64(m))
				last.Store(int64(time.Since(begun)))
			})
		}()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			r := fleetReport{}
			select {
			case <-tick.C:
			case err := <-ended:
				if err != nil {
					return k.describe(err)
				}
				r.Ended, r.Lost = true, counting.lost.Load()
			}
			r.Finished, r.Seconds = int(n.Load()), time.Duration(last.Load()).Seconds()
			line, err := marshal(r)
			if err == nil {
				err = k.out.write(line)
			}
			if err != nil || r.Ended {
				return err
			}
		}
	})
}

// fleetProcess is one worker process, as bench sees it.
type fleetProcess struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	reports chan fleetReport // its reports; closed when its stdout ends
	last    fleetReport      // the newest report that bench has read
	stderr  strings.Builder
}

// contention measures several processes that take from one queue.
func (b *bench) contention(ctx context.Context) (benchRecord, error) {
	r := benchRecord{Processes: b.processes, Workers: fleetWorkers, Batch: 1}
	var err error
	if r.Backlog, err = b.fill(ctx, b.entries, time.Now().Add(b.share/2)); err != nil {
		return r, err
	}
	var fleet []*fleetProcess
	defer func() {
		for _, p := range fleet {
			p.end()
		}
	}()
	for range b.processes {
		p, err := b.spawn(ctx)
		if err != nil {
			return r, err
		}
		fleet = append(fleet, p)
	}
	for _, p := range fleet { // wait until all are ready
		if _, ok := p.next(ctx); !ok {
			return r, p.deathError(ctx)
		}
	}
	for _, p := range fleet {
		io.WriteString(p.stdin, "go\n") // an error means that the process died; its missing report tells
	}
	deadline := time.Now().Add(b.share / 2)
	for told := false; ; {
		n, ended := 0, 0
		for _, p := range fleet {
			if !p.last.Ended {
				report, ok := p.next(ctx)
				if !ok {
					return r, p.deathError(ctx)
				}
				p.last = report
			}
			n += p.last.Finished
			if p.last.Ended {
				ended++
			}
		}
		if ended == len(fleet) {
			break
		}
		late := time.Since(deadline)
		if !told && (n >= (r.Backlog+1)/2 || n > 0 && late > 0 || late > benchPatience) {
			told = true
			for _, p := range fleet {
				io.WriteString(p.stdin, "stop\n")
			}
		}
	}
	lost := 0.0
	for _, p := range fleet {
		r.Entries += p.last.Finished
		r.Seconds = max(r.Seconds, p.last.Seconds)
		lost += float64(p.last.Lost)
	}
	if r.Entries == 0 {
		return r, errNothingTaken
	}
	lost /= float64(r.Entries)
	r.Lost = &lost
	return r, nil
}

// spawn starts a worker process that uses the same coordinator.
func (b *bench) spawn(ctx context.Context) (*fleetProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	env := maps.Clone(b.env)
	env["ZKQ_COORDINATOR"] = b.settings.target.String()
	env["ZKQ_SESSION_TIMEOUT"] = b.settings.sessionTimeout.String()
	env["ZKQ_CONNECT_TIMEOUT"] = b.settings.connectTimeout.String()
	env["ZKQ_LAYOUT"], env["ZKQ_OUTPUT"] = string(layoutLocking), "text"
	p := &fleetProcess{cmd: exec.Command(self, "__bench", b.call.queue, strconv.Itoa(fleetWorkers)), reports: make(chan fleetReport)}
	p.cmd.Args[0] = os.Args[0] // a binary that acts as several programs looks at this name
	p.cmd.Env = env.list()
	p.cmd.Stderr = &p.stderr
	ownGroup(p.cmd) // Ctrl-C must reach only this process, which then ends the others
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.reports)
		lines := bufio.NewScanner(stdout)
		if !lines.Scan() || lines.Text() != "ready" {
			return
		}
		p.reports <- fleetReport{}
		for lines.Scan() {
			var r fleetReport
			if json.Unmarshal(lines.Bytes(), &r) == nil {
				p.reports <- r
			}
		}
	}()
	return p, nil
}

// next waits for the next report. It returns false if the process or ctx ended first.
func (p *fleetProcess) next(ctx context.Context) (fleetReport, bool) {
	select {
	case r, ok := <-p.reports:
		return r, ok
	case <-ctx.Done():
		return fleetReport{}, false
	}
}

// deathError returns the error for a process whose output ended early, with what it printed
// on stderr. If ctx has ended, the cause of that is the error.
func (p *fleetProcess) deathError(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p.cmd.Process.Kill()
	for range p.reports {
	}
	p.cmd.Wait()
	if message := strings.TrimSpace(p.stderr.String()); message != "" {
		return fmt.Errorf("a bench process ended early: %s", printable(message))
	}
	return errors.New("a bench process ended early")
}

// end stops the process, with SIGKILL after 10 s. Entries that it still holds are ready
// again when its session expires.
func (p *fleetProcess) end() {
	p.stdin.Close()
	timer := time.AfterFunc(10*time.Second, func() { p.cmd.Process.Kill() })
	defer timer.Stop()
	for range p.reports {
	}
	p.cmd.Wait()
}
