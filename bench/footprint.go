// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/coterie-kv/coterie/bench/harness"
)

// idleTime is how long the idle cluster of the footprint is observed.
const idleTime = 10 * time.Second

// settleTime is how long it may finish the work of its start before.
const settleTime = 2 * time.Second

// footprint prints a table in Markdown: an idle cluster of three members, and a program that embeds a node beside programs
// that do not.
func (p plan) footprint(ctx context.Context, out io.Writer) error {
	fmt.Fprintf(out, "| quantity | %s | %s |\n| --- | --- | --- |\n", onEtcd.label, onCoterie.label)
	if err := p.idleTable(ctx, out); err != nil {
		return err
	}
	return p.programTable(ctx, out)
}

// idleTable prints the rows about an idle cluster.
func (p plan) idleTable(ctx context.Context, out io.Writer) error {
	var samples []harness.Sample
	for _, c := range onBoth {
		s, err := p.idleSample(ctx, c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.label, err)
		}
		samples = append(samples, s)
	}
	for _, line := range []struct {
		about, format string
		figure        string
		scale         float64
	}{
		{"CPU of an idle member, of a core", "%.2f %%", harness.FigureCPUPercent, 1},
		{"goroutines of a member", "%.0f", harness.FigureGoroutines, 1},
		{"live heap of a member", "%.1f MB", harness.FigureHeap, 1e6},
		{"resident memory of a member", "%.1f MB", harness.FigureResident, 1e6},
		{"bytes written to disk by three members in 10 s", "%.0f", harness.FigureWritten, 1},
		{"directory of a member", "%.2f MB", harness.FigureDirBytes, 1e6},
	} {
		fmt.Fprintf(out, "| %s |", line.about)
		for _, s := range samples {
			fmt.Fprintf(out, " "+line.format+" |", s.Figures[line.figure]/line.scale)
		}
		fmt.Fprintln(out)
	}
	return nil
}

func (p plan) idleSample(ctx context.Context, c contender) (s harness.Sample, err error) {
	dir, err := os.MkdirTemp(p.dir, "bench")
	if err != nil {
		return s, err
	}
	defer os.RemoveAll(dir)
	ready, err := p.prepare(ctx, row{load: harness.Load{Work: "idle"}}, c, dir)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, ready.close()) }()
	if _, err := ready.run(ctx, settleTime); err != nil {
		return s, err
	}
	return ready.run(ctx, idleTime)
}

// The programs of the comparison of sizes.
const (
	plainProgram = `package main

import (
	_ "crypto/tls"
	"net/http"
)

func main() { http.ListenAndServe("127.0.0.1:0", nil) }
`
	coterieProgram = `package main

import (
	"context"
	_ "crypto/tls"
	"net/http"

	"github.com/coterie-kv/coterie"
)

func main() {
	n, err := coterie.Open(context.Background(), coterie.Config{Dir: "data"})
	if err != nil {
		panic(err)
	}
	defer n.Close()
	http.ListenAndServe("127.0.0.1:0", coterie.HealthHandler(n))
}
`
	etcdProgram = `package main

import (
	_ "crypto/tls"
	"net/http"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
)

func main() {
	e, err := embed.StartEtcd(embed.NewConfig())
	if err != nil {
		panic(err)
	}
	defer e.Close()
	v3client.New(e.Server)
	http.ListenAndServe("127.0.0.1:0", nil)
}
`
)

// programTable prints the rows about programs. They are built within this module. Its requirements may be newer than
// those of a module with one of them.
func (p plan) programTable(ctx context.Context, out io.Writer) error {
	plain, err := p.measureProgram(ctx, plainProgram)
	if err != nil {
		return err
	}
	etcd, err := p.measureProgram(ctx, etcdProgram)
	if err != nil {
		return err
	}
	own, err := p.measureProgram(ctx, coterieProgram)
	if err != nil {
		return err
	}
	over := func(p program) float64 { return float64(p.bytes-plain.bytes) / 1e6 }
	fmt.Fprintf(out, "| stripped program with an embedded member | %.1f MB | %.1f MB |\n", float64(etcd.bytes)/1e6, float64(own.bytes)/1e6)
	fmt.Fprintf(out, "| the same, beyond one with net/http and crypto/tls (%.1f MB) | %.1f MB | %.1f MB |\n",
		float64(plain.bytes)/1e6, over(etcd), over(own))
	fmt.Fprintf(out, "| modules linked, besides the program's own | %d | %d |\n", etcd.modules, own.modules)
	return nil
}

// A program is a program that was built.
type program struct {
	bytes   int64 // of the stripped file
	modules int   // that are linked, besides the main module
}

func (p plan) measureProgram(ctx context.Context, source string) (m program, err error) {
	dir, err := os.MkdirTemp(p.dir, "bench")
	if err != nil {
		return m, err
	}
	defer os.RemoveAll(dir)
	main, file := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	if err := os.WriteFile(main, []byte(source), 0o600); err != nil {
		return m, err
	}
	if text, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, main).CombinedOutput(); err != nil {
		return m, fmt.Errorf("go build: %w\n%s", err, text)
	}
	info, err := os.Stat(file)
	if err != nil {
		return m, err
	}
	text, err := exec.CommandContext(ctx, "go", "version", "-m", file).Output()
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == "dep" {
			m.modules++
		}
	}
	m.bytes = info.Size()
	return m, err
}
