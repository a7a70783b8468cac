// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"expvar"
	"fmt"
	"net/http"
	"os"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"strings"
	"time"

	nettrace "golang.org/x/net/trace"
)

// WithDebugVars adds /debug/vars, the variables of package expvar as JSON. etcd always has this path. Here it is an
// option, because it shows the variables of the whole program, and its command line.
func WithDebugVars() Option { return WithHandler("/debug/vars", http.HandlerFunc(serveVars)) }

// WithPprof adds the profiles of the program below /debug/pprof/, for go tool pprof and go tool trace. It corresponds to
// etcd's --enable-pprof.
//
// Every client that can use HTTP on the endpoint can take profiles, which cost time of the processor and show the command
// line. Use it with certificates of clients, or on an endpoint that untrusted clients cannot reach.
//
// It does not use net/http/pprof, because the import of that package adds the profiles to every server of the program
// that has [http.DefaultServeMux].
func WithPprof() Option { return WithHandler("/debug/pprof/", http.HandlerFunc(serveProfile)) }

// WithTraces adds /debug/requests and /debug/events, the pages of golang.org/x/net/trace with the texts that it marks as
// sensitive. etcd has them at the log level debug. gRPC adds its calls if the program sets grpc.EnableTracing. The traces
// contain keys, values and tokens; the note about untrusted clients at [WithPprof] applies.
func WithTraces() Option {
	requests := func(w http.ResponseWriter, r *http.Request) { nettrace.Render(w, r, true) }
	events := func(w http.ResponseWriter, r *http.Request) { nettrace.RenderEvents(w, r, true) }
	return func(o *options) {
		WithHandler("/debug/requests", http.HandlerFunc(requests))(o)
		WithHandler("/debug/events", http.HandlerFunc(events))(o)
	}
}

// serveVars writes the variables as etcd does.
func serveVars(w http.ResponseWriter, r *http.Request) {
	if !onlyGet(w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	separator := "{\n"
	expvar.Do(func(kv expvar.KeyValue) {
		fmt.Fprintf(w, "%s%q: %s", separator, kv.Key, kv.Value)
		separator = ",\n"
	})
	fmt.Fprint(w, "\n}\n")
}

// serveProfile serves the paths of net/http/pprof that go tool pprof needs.
func serveProfile(w http.ResponseWriter, r *http.Request) {
	switch name := strings.TrimPrefix(r.URL.Path, "/debug/pprof/"); name {
	case "":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		for _, p := range pprof.Profiles() {
			fmt.Fprintf(w, "%d %s?debug=1\n", p.Count(), p.Name())
		}
		fmt.Fprint(w, "profile?seconds=30\ntrace?seconds=1\n")
	case "cmdline":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, strings.Join(os.Args, "\x00"))
	case "profile":
		record(w, r, 30*time.Second, func() error { return pprof.StartCPUProfile(w) }, pprof.StopCPUProfile)
	case "trace":
		record(w, r, time.Second, func() error { return trace.Start(w) }, trace.Stop)
	default:
		serveNamedProfile(w, r, name)
	}
}

// record runs a recording of the program for the time that the request wants.
func record(w http.ResponseWriter, r *http.Request, d time.Duration, start func() error, stop func()) {
	if seconds, err := strconv.ParseFloat(r.FormValue("seconds"), 64); err == nil && seconds > 0 {
		d = time.Duration(min(seconds, time.Hour.Seconds()) * float64(time.Second))
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if err := start(); err != nil { // another one runs
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer stop()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
}

func serveNamedProfile(w http.ResponseWriter, r *http.Request, name string) {
	p := pprof.Lookup(name)
	if p == nil {
		http.Error(w, "unknown profile", http.StatusNotFound)
		return
	}
	debug, err := strconv.Atoi(r.FormValue("debug"))
	kind := "text/plain; charset=utf-8"
	if err != nil || debug == 0 {
		kind = "application/octet-stream"
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_ = p.WriteTo(w, debug) // the error is of a client that has gone
}
