// SPDX-License-Identifier: LGPL-2.1-or-later
// SPDX-FileCopyrightText: fcgi-pool contributors

// An HTTP server with Gin that takes its listener as systemd passes it, sd_listen_fds(3): fcgi-pool --socket-activation.
//
//	go build -o hello-gin hello-gin.go
//
// It says READY=1 when it is initialised, sd_notify(3). On SIGTERM it stops accepting and finishes the requests it has.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/gin-gonic/gin"
)

// How long to wait for running requests. Less than --stop-timeout.
const drainTime = 25 * time.Second

func systemdListener() (net.Listener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) || os.Getenv("LISTEN_FDS") != "1" {
		return nil, fmt.Errorf("no listening socket was passed to this process")
	}
	file := os.NewFile(3, os.Getenv("LISTEN_FDNAMES"))
	defer file.Close() // FileListener has made a copy
	return net.FileListener(file)
}

func notify(state string) error {
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}

func hello(c *gin.Context) {
	if msec, err := strconv.Atoi(c.Query("sleep")); err == nil && msec > 0 && msec <= 60000 {
		time.Sleep(time.Duration(msec) * time.Millisecond)
	}
	c.String(http.StatusOK, "hello from pid %d\n", os.Getpid())
}

func main() {
	log.SetFlags(0) // the journal knows the time

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)

	listener, err := systemdListener()
	if err != nil {
		log.Fatal(err)
	}

	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.Use(gin.Recovery())
	router.NoRoute(hello) // any path: the proxy decides where we live
	server := &http.Server{Handler: router, ReadHeaderTimeout: 10 * time.Second}

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	if err := notify("READY=1"); err != nil {
		log.Fatalf("cannot say READY=1: %v", err)
	}

	select {
	case err := <-served:
		log.Fatalf("cannot accept: %v", err)
	case <-stop:
	}

	listener.Close()
	<-served // only now does the server know of every accepted connection

	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		log.Printf("requests still running, exiting: %v", err)
	}
}
