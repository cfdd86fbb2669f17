// SPDX-License-Identifier: LGPL-2.1-or-later
// SPDX-FileCopyrightText: fcgi-pool contributors

// Command go-echo keeps the echo contract (../echo-contract.h) with net/http/fcgi.
//
// SIGTERM stops it without losing a request. It counts connections, not handlers: net/http/fcgi writes
// END_REQUEST after the handler has returned. "Stopping" is set before the listener is closed, because
// Serve returns as soon as it is; main leaves only when the last connection is closed. With -naive it does
// none of that and SIGTERM kills it, as it does most Go programs.
package main

import (
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/http/fcgi"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A countingListener knows how many connections it has accepted that are not closed yet.
type countingListener struct {
	net.Listener
	open sync.WaitGroup
}

type countedConn struct {
	net.Conn
	once sync.Once
	open *sync.WaitGroup
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	return &countedConn{Conn: c, open: &l.open}, nil
}

func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.open.Done)
	return err
}

func orDash(name string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return "-"
}

func milliseconds(s string) time.Duration {
	n, _ := strconv.ParseUint(s, 10, 32)
	return time.Duration(n) * time.Millisecond
}

// writePattern writes n bytes of lines of 15 digits, counting up from start.
func writePattern(w io.Writer, start, n uint64) {
	buf := make([]byte, 0, 16384)
	for n > 0 {
		buf = buf[:0]
		for len(buf) < 16384 && uint64(len(buf)) < n {
			buf = append(buf, fmt.Sprintf("%015d\n", start)...)
			start++
		}
		if uint64(len(buf)) > n {
			buf = buf[:n]
		}
		if _, err := w.Write(buf); err != nil {
			return
		}
		n -= uint64(len(buf))
	}
}

func echo(defaultSleep time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		sum := crc32.NewIEEE()
		length, err := io.Copy(sum, r.Body)
		if err != nil {
			fmt.Fprintln(os.Stderr, "reading the body:", err)
		}

		if q.Get("sleep") != "" {
			time.Sleep(milliseconds(q.Get("sleep")))
		} else {
			time.Sleep(defaultSleep)
		}
		for end := time.Now().Add(milliseconds(q.Get("burn"))); time.Now().Before(end); {
		}
		if text := q.Get("stderr"); text != "" {
			fmt.Fprintln(os.Stderr, text)
		}
		if code, err := strconv.Atoi(q.Get("exit")); err == nil {
			os.Exit(code)
		}

		w.Header().Set("Content-Type", "text/plain")
		if code, err := strconv.Atoi(q.Get("status")); err == nil && code >= 200 && code <= 999 {
			w.WriteHeader(code)
		}
		fmt.Fprintf(w, "pid=%d\nslot=%s generation=%s\nbody-length=%d body-crc=%08x\n", os.Getpid(),
			orDash("FCGI_POOL_SLOT"), orDash("FCGI_POOL_GENERATION"), length, sum.Sum32())
		if name := q.Get("env"); name != "" {
			fmt.Fprintf(w, "env-%s=%s\n", name, os.Getenv(name))
		}
		size, _ := strconv.ParseUint(q.Get("size"), 10, 64)
		start, _ := strconv.ParseUint(q.Get("start"), 10, 64)
		writePattern(w, start, size)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "go-echo:", err)
	os.Exit(1)
}

func main() {
	naive := flag.Bool("naive", false, "no signal handling")
	sleep := flag.Duration("sleep", 0, "sleep that long in each request without sleep=")
	grace := flag.Duration("grace", 60*time.Second, "after SIGTERM, wait at most that long for connections")
	flag.Parse()

	inherited, err := net.FileListener(os.Stdin)
	if err != nil {
		fatal(err)
	}
	os.Stdin.Close()

	if *naive {
		fatal(fcgi.Serve(inherited, echo(*sleep)))
	}

	var stopping atomic.Bool
	listener := &countingListener{Listener: inherited}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() {
		<-signals
		stopping.Store(true)
		inherited.Close()
	}()

	err = fcgi.Serve(listener, echo(*sleep))
	if !stopping.Load() {
		fatal(err)
	}
	time.AfterFunc(*grace, func() { fatal(fmt.Errorf("connections still open after %s", *grace)) })
	listener.open.Wait()
}
