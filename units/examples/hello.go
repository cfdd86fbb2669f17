// SPDX-License-Identifier: LGPL-2.1-or-later
// SPDX-FileCopyrightText: fcgi-pool contributors

// A FastCGI worker with net/http/fcgi, from the listener on fd 0.
//
//	go build -o hello-go hello.go
//
// On SIGTERM it stops accepting and lets the connections it holds end. Connections are counted, not handlers: the end of a
// response is written after the handler has returned.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/fcgi"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// How long to wait for connections that the web server keeps open. Less than --stop-timeout.
const drainTime = 25 * time.Second

type countingListener struct {
	net.Listener
	open sync.WaitGroup
}

type countedConn struct {
	net.Conn
	once sync.Once
	done func()
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	return &countedConn{Conn: conn, done: l.open.Done}, nil
}

func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.done)
	return err
}

func hello(w http.ResponseWriter, r *http.Request) {
	if msec, err := strconv.Atoi(r.URL.Query().Get("sleep")); err == nil && msec > 0 && msec <= 60000 {
		time.Sleep(time.Duration(msec) * time.Millisecond)
	}
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintf(w, "hello from pid %d\n", os.Getpid())
}

func main() {
	log.SetFlags(0) // the journal knows the time

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)

	// Whatever takes time to set up belongs here: once Serve waits on the listener the worker counts as ready.
	inner, err := net.FileListener(os.Stdin)
	if err != nil {
		log.Fatalf("fd 0 is not a listening socket: %v", err)
	}
	listener := &countingListener{Listener: inner}

	served := make(chan error, 1)
	go func() { served <- fcgi.Serve(listener, http.HandlerFunc(hello)) }()

	select {
	case err := <-served:
		log.Fatalf("cannot accept: %v", err)
	case <-stop:
	}

	listener.Close()
	<-served // only now is every accepted connection counted

	drained := make(chan struct{})
	go func() { listener.open.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-time.After(drainTime):
		log.Print("connections still open, exiting")
	}
}
