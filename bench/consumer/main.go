// Command consumer is a worker process of the bench, with nothing linked but zkq and its drivers.
//
// Its arguments: service, address, root, queue, workers, batch. It says "ready", waits for a line, works until the next
// one, says every few milliseconds how many entries it has finished, and at the end what it did: lines of JSON.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/bench/load"
)

// report is what the process did.
type report struct {
	N       int     `json:"n"`
	Seconds float64 `json:"seconds"` // until the last entry was finished

	Ended     bool  `json:"ended"` // what follows is known at the end
	Lost      int64 `json:"lost"`
	Peak      int   `json:"peak"`      // bytes of memory
	Anonymous int   `json:"anonymous"` // of it, not mapped from files
}

func main() {
	if err := work(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "consumer:", err)
		os.Exit(1)
	}
}

func work(args []string) error {
	if len(args) != 6 {
		return fmt.Errorf("%d arguments", len(args))
	}
	var number [2]int
	for i := range number {
		n, err := strconv.Atoi(args[4+i])
		if err != nil {
			return err
		}
		number[i] = n
	}
	workers, batch := number[0], number[1]
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c, err := load.Open(ctx, args[0], args[1], args[2])
	if err != nil {
		return err
	}
	defer c.Close()
	q := zkq.NewLockingQueue(c, args[3])
	defer q.Close()
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	if !in.Scan() {
		return nil
	}
	begun := time.Now()
	var n, last atomic.Int64
	go func() {
		in.Scan()
		cancel()
	}()
	done := make(chan error)
	go func() {
		done <- load.Work(ctx, q, workers, batch, func(*zkq.Held) {}, func(k int) {
			n.Add(int64(k))
			last.Store(int64(time.Since(begun)))
		})
	}()
	out := json.NewEncoder(os.Stdout)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		r := report{N: int(n.Load()), Seconds: time.Duration(last.Load()).Seconds()}
		select {
		case <-tick.C:
		case err := <-done:
			if err != nil {
				return err
			}
			r = report{N: int(n.Load()), Seconds: time.Duration(last.Load()).Seconds(), Ended: true}
			r.Lost, r.Peak, r.Anonymous = c.Lost.Load(), memory("VmHWM"), memory("RssAnon")
		}
		if err := out.Encode(r); err != nil || r.Ended {
			return err
		}
	}
}

// memory is a line of the kernel's account of this process, in bytes.
func memory(line string) int {
	b, _ := os.ReadFile("/proc/self/status")
	for s := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(s, line+":"); ok {
			kib, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return kib << 10
		}
	}
	return 0
}
