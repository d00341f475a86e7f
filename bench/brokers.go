package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/beanstalkd/go-beanstalk"
	"github.com/hibiken/asynq"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/zkq/zkq/internal/workload"
)

// The brokers, each set to store durably what it has acknowledged, as its documentation says.

// says asks a server a line and wants an answer that begins so.
func says(line, want string) func(context.Context, string) error {
	return func(ctx context.Context, address string) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := io.WriteString(c, line+"\r\n"); err != nil {
			return err
		}
		answer := make([]byte, 64)
		n, err := c.Read(answer)
		if err == nil && !strings.HasPrefix(string(answer[:n]), want) {
			err = fmt.Errorf("it says %q", answer[:n])
		}
		return err
	}
}

// asynqPipe is asynq on Redis.
type asynqPipe struct {
	client *asynq.Client
	redis  asynq.RedisClientOpt
}

func (b *bench) redis(ctx context.Context, slow bool) (*process, error) {
	return b.start(ctx, slow, system{"redis", func(port int, dir string) (command, error) {
		return command{from: "redis-server", args: []string{
			"redis-server", "--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir,
			"--appendonly", "yes", "--appendfsync", "always", "--save", "",
		}}, nil
	}, says("PING", "+PONG")})
}

func newAsynq(s *process) func(context.Context) (pipe, error) {
	return func(context.Context) (pipe, error) {
		redis := asynq.RedisClientOpt{Addr: s.address, PoolSize: 2 * putters}
		return &asynqPipe{asynq.NewClient(redis), redis}, nil
	}
}

func (p *asynqPipe) put(ctx context.Context, _ int, value []byte) error {
	_, err := p.client.EnqueueContext(ctx, asynq.NewTask("work", value))
	return err
}

func (p *asynqPipe) work(ctx context.Context, see func([]byte)) error {
	s := asynq.NewServer(p.redis, asynq.Config{
		Concurrency:       pipeWorkers,
		TaskCheckInterval: 100 * time.Millisecond, // by default an idle worker looks once a second
		LogLevel:          asynq.FatalLevel,
	})
	err := s.Start(asynq.HandlerFunc(func(_ context.Context, t *asynq.Task) error {
		see(t.Payload())
		return nil
	}))
	if err != nil {
		return err
	}
	<-ctx.Done()
	s.Shutdown()
	return nil
}

func (p *asynqPipe) close() { p.client.Close() }

// beanstalkPipe is beanstalkd, with a connection for each putter and each worker.
type beanstalkPipe struct {
	address string
	puts    [putters]*beanstalk.Conn
}

func (b *bench) beanstalkd(ctx context.Context, slow bool) (*process, error) {
	return b.start(ctx, slow, system{"beanstalkd", func(port int, dir string) (command, error) {
		return command{from: "beanstalkd", args: []string{
			"beanstalkd", "-l", "127.0.0.1", "-p", strconv.Itoa(port), "-b", dir, "-f", "0",
		}}, nil
	}, says("stats", "OK")})
}

func newBeanstalk(s *process) func(context.Context) (pipe, error) {
	return func(context.Context) (pipe, error) {
		p := &beanstalkPipe{address: s.address}
		for i := range p.puts {
			c, err := beanstalk.Dial("tcp", s.address)
			if err != nil {
				p.close()
				return nil, err
			}
			p.puts[i] = c
		}
		return p, nil
	}
}

func (p *beanstalkPipe) put(_ context.Context, putter int, value []byte) error {
	_, err := p.puts[putter].Put(value, 100, 0, time.Minute)
	return err
}

func (p *beanstalkPipe) work(ctx context.Context, see func([]byte)) error {
	return workload.InParallel(pipeWorkers, func(int) error {
		c, err := beanstalk.Dial("tcp", p.address)
		if err != nil {
			return err
		}
		defer c.Close()
		for ctx.Err() == nil {
			id, value, err := c.Reserve(time.Second)
			if errors.Is(err, beanstalk.ErrTimeout) || errors.Is(err, beanstalk.ErrDeadline) {
				continue
			}
			if err != nil {
				return err
			}
			see(value)
			if err := c.Delete(id); err != nil {
				return err
			}
		}
		return nil
	})
}

func (p *beanstalkPipe) close() {
	for _, c := range p.puts {
		if c != nil {
			c.Close()
		}
	}
}

// natsPipe is a work queue of NATS JetStream: each publish waits for its acknowledgement, and so does each ack.
type natsPipe struct {
	conn     *nats.Conn
	js       jetstream.JetStream
	consumer jetstream.Consumer
}

func (b *bench) nats(ctx context.Context, slow bool) (*process, error) {
	return b.start(ctx, slow, system{"nats", func(port int, dir string) (command, error) {
		return command{role: "nats", args: []string{dir, strconv.Itoa(port)}}, nil
	}, func(_ context.Context, address string) error {
		c, err := nats.Connect("nats://"+address, nats.Timeout(time.Second))
		if err != nil {
			return err
		}
		c.Close()
		return nil
	}})
}

// natsRole is NATS's process.
func natsRole(args []string) error {
	port, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: args[0] + "/data", SyncAlways: true, NoLog: true, NoSigs: true,
	})
	if err != nil {
		return err
	}
	s.Start()
	s.WaitForShutdown()
	os.Exit(0)
	return nil
}

func newNATS(s *process) func(context.Context) (pipe, error) {
	return func(ctx context.Context) (pipe, error) {
		c, err := nats.Connect("nats://" + s.address)
		if err != nil {
			return nil, err
		}
		p := &natsPipe{conn: c}
		if p.js, err = jetstream.New(c); err == nil {
			_, err = p.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
				Name: "work", Subjects: []string{"work"}, Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage,
			})
		}
		if err == nil {
			p.consumer, err = p.js.CreateOrUpdateConsumer(ctx, "work", jetstream.ConsumerConfig{
				Durable: "workers", AckPolicy: jetstream.AckExplicitPolicy,
			})
		}
		if err != nil {
			c.Close()
			return nil, err
		}
		return p, nil
	}
}

func (p *natsPipe) put(ctx context.Context, _ int, value []byte) error {
	_, err := p.js.Publish(ctx, "work", value)
	return err
}

func (p *natsPipe) work(ctx context.Context, see func([]byte)) error {
	messages, err := p.consumer.Messages()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, messages.Stop)
	defer stop()
	return workload.InParallel(pipeWorkers, func(int) error {
		for {
			m, err := messages.Next()
			if errors.Is(err, jetstream.ErrMsgIteratorClosed) {
				return nil
			}
			if err != nil {
				return err
			}
			see(m.Data())
			if err := m.DoubleAck(context.WithoutCancel(ctx)); err != nil {
				return err
			}
		}
	})
}

func (p *natsPipe) close() { p.conn.Close() }
