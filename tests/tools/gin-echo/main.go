// SPDX-License-Identifier: LGPL-2.1-or-later
// SPDX-FileCopyrightText: fcgi-pool contributors

// Command gin-echo answers over HTTP what the echo contract (../echo-contract.h) asks for, with Gin, on the
// listener passed as fd 3 as in sd_listen_fds(3). SIGTERM: requests in flight are finished, then it exits. With
// -naive it handles no signal, as gin.Engine.Run() does not.
package main

import (
	"context"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gin-gonic/gin"
)

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

// pattern is n bytes of lines of 15 digits, counting up from start.
func pattern(start, n uint64) string {
	var b strings.Builder
	for ; uint64(b.Len()) < n; start++ {
		fmt.Fprintf(&b, "%015d\n", start)
	}
	return b.String()[:n]
}

func echo(c *gin.Context) {
	sum := crc32.NewIEEE()
	length, err := io.Copy(sum, c.Request.Body)
	if err != nil {
		fmt.Fprintln(os.Stderr, "reading the body:", err)
	}

	time.Sleep(milliseconds(c.Query("sleep")))
	for end := time.Now().Add(milliseconds(c.Query("burn"))); time.Now().Before(end); {
	}
	if text := c.Query("stderr"); text != "" {
		fmt.Fprintln(os.Stderr, text)
	}
	if code, err := strconv.Atoi(c.Query("exit")); err == nil {
		os.Exit(code)
	}

	status := http.StatusOK
	if code, err := strconv.Atoi(c.Query("status")); err == nil && code >= 200 && code <= 999 {
		status = code
	}
	env := ""
	if name := c.Query("env"); name != "" {
		env = fmt.Sprintf("env-%s=%s\n", name, os.Getenv(name))
	}
	size, _ := strconv.ParseUint(c.Query("size"), 10, 32)
	start, _ := strconv.ParseUint(c.Query("start"), 10, 64)
	c.String(status, "pid=%d\nslot=%s generation=%s\nbody-length=%d body-crc=%08x\n%s%s", os.Getpid(),
		orDash("FCGI_POOL_SLOT"), orDash("FCGI_POOL_GENERATION"), length, sum.Sum32(), env,
		pattern(start, size))
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "gin-echo:", err)
	os.Exit(1)
}

// inheritedListener is fd 3, if the LISTEN_* variables are meant for this very process.
func inheritedListener() (net.Listener, error) {
	if pid := os.Getenv("LISTEN_PID"); pid != strconv.Itoa(os.Getpid()) {
		return nil, fmt.Errorf("LISTEN_PID is '%s', not this process (%d)", pid, os.Getpid())
	}
	if n, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err != nil || n < 1 {
		return nil, fmt.Errorf("LISTEN_FDS is '%s', expected at least 1", os.Getenv("LISTEN_FDS"))
	}
	f := os.NewFile(3, "listener")
	defer f.Close()
	return net.FileListener(f)
}

func main() {
	naive := flag.Bool("naive", false, "no signal handling")
	grace := flag.Duration("grace", 60*time.Second, "after SIGTERM, wait at most that long for requests")
	flag.Parse()

	listener, err := inheritedListener()
	if err != nil {
		fatal(err)
	}

	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.NoRoute(echo)
	server := &http.Server{Handler: router}
	if *naive {
		fatal(server.Serve(listener))
	}

	finished := make(chan error)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() {
		<-signals
		ctx, cancel := context.WithTimeout(context.Background(), *grace)
		defer cancel()
		finished <- server.Shutdown(ctx)
	}()

	if err := server.Serve(listener); err != http.ErrServerClosed {
		fatal(err)
	}
	if err := <-finished; err != nil {
		fatal(err)
	}
}
