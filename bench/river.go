package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// postgres starts a server with its own defaults; it refuses to run as root.
func (b *bench) postgres(ctx context.Context, slow bool) (*process, error) {
	return b.start(ctx, slow, system{"postgres", func(port int, dir string) (command, error) {
		missing := fmt.Errorf("%w: PostgreSQL: make bench-deps", errMissing)
		bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
		if path, err := exec.LookPath("initdb"); err == nil {
			bins = append(bins, filepath.Dir(path))
		}
		if len(bins) == 0 {
			return command{}, missing
		}
		bin := slices.Max(bins)
		initdb := []string{filepath.Join(bin, "initdb"), "-D", filepath.Join(dir, "data"), "-U", "bench", "-A", "trust", "--no-sync"}
		name := ""
		if os.Geteuid() == 0 {
			u, err := user.Lookup("postgres")
			if err != nil {
				return command{}, missing
			}
			name = u.Username
			uid, _ := strconv.Atoi(u.Uid)
			gid, _ := strconv.Atoi(u.Gid)
			if err := os.Chown(dir, uid, gid); err != nil {
				return command{}, err
			}
			initdb = append([]string{"setpriv", "--reuid=" + name, "--regid=" + name, "--clear-groups", "--"}, initdb...)
		}
		cmd := exec.CommandContext(ctx, initdb[0], initdb[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return command{}, fmt.Errorf("initdb: %w: %s", err, out)
		}
		return command{as: name, args: []string{
			filepath.Join(bin, "postgres"), "-D", filepath.Join(dir, "data"), "-p", strconv.Itoa(port), "-k", dir,
			"-c", "listen_addresses=127.0.0.1",
		}}, nil
	}, func(ctx context.Context, address string) error {
		c, err := pgx.Connect(ctx, "postgres://bench@"+address+"/postgres?sslmode=disable")
		if err != nil {
			return err
		}
		return c.Close(ctx)
	}})
}

// job is what River works on.
type job struct {
	Value []byte `json:"value"`
}

func (job) Kind() string { return "work" }

// riverPipe is River on PostgreSQL.
type riverPipe struct {
	pool     *pgxpool.Pool
	insert   *river.Client[pgx.Tx]
	cooldown time.Duration
}

// newRiver returns pipes that fetch again after a pause; 0 is River's default, 100 ms.
func newRiver(s *process, cooldown time.Duration) func(context.Context) (pipe, error) {
	return func(ctx context.Context) (pipe, error) {
		cfg, err := pgxpool.ParseConfig("postgres://bench@" + s.address + "/postgres?sslmode=disable")
		if err != nil {
			return nil, err
		}
		cfg.MaxConns = 2 * putters
		pool, err := pgxpool.NewWithConfig(ctx, cfg)
		if err != nil {
			return nil, err
		}
		driver := riverpgxv5.New(pool)
		p := &riverPipe{pool: pool, cooldown: cooldown}
		migrate, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: silent()})
		if err == nil {
			_, err = migrate.Migrate(ctx, rivermigrate.DirectionUp, nil)
		}
		if err == nil {
			p.insert, err = river.NewClient(driver, &river.Config{Logger: silent(), SkipUnknownJobCheck: true})
		}
		if err != nil {
			pool.Close()
			return nil, err
		}
		return p, nil
	}
}

func silent() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func (p *riverPipe) put(ctx context.Context, _ int, value []byte) error {
	_, err := p.insert.Insert(ctx, job{value}, nil)
	return err
}

// handler shows River's jobs.
type handler struct {
	river.WorkerDefaults[job]
	see func([]byte)
}

func (h *handler) Work(_ context.Context, j *river.Job[job]) error {
	h.see(j.Args.Value)
	return nil
}

func (p *riverPipe) work(ctx context.Context, see func([]byte)) error {
	all := river.NewWorkers()
	river.AddWorker(all, &handler{see: see})
	c, err := river.NewClient(riverpgxv5.New(p.pool), &river.Config{
		Logger: silent(), Workers: all, FetchCooldown: p.cooldown, FetchPollInterval: 100 * p.cooldown, // 0: the default
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: pipeWorkers}},
	})
	if err != nil {
		return err
	}
	if err := c.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	<-ctx.Done()
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	if err := c.Stop(stopping); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (p *riverPipe) close() { p.pool.Close() }
