// SPDX-License-Identifier: Apache-2.0

package languages

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/coterie-kv/coterie/etcdapi/internal/processtest"
)

// A language runs a script.
type language struct {
	program, script string
	probe           []string // arguments that fail unless the client is installed
}

func languages() map[string]language {
	return map[string]language{
		"node":   {"node", "etcd3.js", []string{"-e", "require('etcd3')"}},
		"python": {"/usr/bin/python3", "etcd3_client.py", []string{"-c", "import etcd3"}}, // Debian's, which has Debian's packages
	}
}

func (l language) skipIfMissing(t *testing.T) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), l.program, l.probe...).CombinedOutput(); err != nil {
		t.Skipf("the client for %s is not installed: %v: %.200s", l.program, err, out)
	}
}

// run runs the script on an endpoint, and logs the versions that it prints.
func (l language) run(t *testing.T, env ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.program, l.script)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "ok ")
	t.Logf("%s%s", l.program, strings.TrimPrefix(string(out), "ok"))
}

// dir is for coteried, until the tests end.
var dir string

func TestMain(m *testing.M) {
	var err error
	if dir, err = os.MkdirTemp("", "languages-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// buildOnce builds coteried and returns its file.
var buildOnce = sync.OnceValues(func() (string, error) {
	name := filepath.Join(dir, "coteried")
	out, err := exec.Command("go", "build", "-o", name, "github.com/coterie-kv/coterie/etcdapi/cmd/coteried").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return name, err
})

func build(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and runs coteried")
	}
	name, err := buildOnce()
	require.NoError(t, err)
	return name
}

// start starts a coteried until the end of the test, and returns its URL.
func start(t *testing.T, program, scheme string, flags ...string) string {
	t.Helper()
	client, peer := scheme+"://"+processtest.FreeAddr(t), "http://"+processtest.FreeAddr(t)
	p := processtest.Start(t, exec.Command(program, append([]string{"--data-dir", filepath.Join(t.TempDir(), "data"), "--listen-client-urls", client,
		"--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer}, flags...)...))
	t.Cleanup(func() {
		p.Signal(os.Interrupt)
		require.Zero(t, p.Exits())
	})
	p.Prints("ready to serve client requests")
	return client
}

func TestClientsInOtherLanguages(t *testing.T) {
	for name, l := range languages() {
		t.Run(name, func(t *testing.T) {
			l.skipIfMissing(t)
			l.run(t, "ENDPOINT="+start(t, build(t), "http"))
		})
	}
}

func TestClientsInOtherLanguagesWithTLS(t *testing.T) {
	for name, l := range languages() {
		t.Run(name, func(t *testing.T) {
			l.skipIfMissing(t)
			program := build(t)
			file := certs(t, program)
			url := start(t, program, "https", "--cert-file", file("member.pem"), "--key-file", file("member-key.pem"), "--trusted-ca-file", file("ca.pem"))
			l.run(t, "ENDPOINT="+url, "CACERT="+file("ca.pem"), "CERT="+file("client.pem"), "KEY="+file("client-key.pem"))
		})
	}
}

// certs makes certificates, and returns a function that returns the path of a file with one.
func certs(t *testing.T, program string) func(name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "certs")
	out, err := exec.CommandContext(t.Context(), program, "certs", "--dir", dir, "member=127.0.0.1", "client").CombinedOutput()
	require.NoError(t, err, string(out))
	return func(name string) string { return filepath.Join(dir, name) }
}

// The client of Python sends a password only with TLS.
func TestClientsInOtherLanguagesWithUsers(t *testing.T) {
	for name, l := range languages() {
		t.Run(name, func(t *testing.T) {
			l.skipIfMissing(t)
			program := build(t)
			file := certs(t, program)
			url := start(t, program, "https", "--cert-file", file("member.pem"), "--key-file", file("member-key.pem"))
			config, err := transport.TLSInfo{TrustedCAFile: file("ca.pem")}.ClientConfig()
			require.NoError(t, err)
			c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, TLS: config, Logger: zap.NewNop()})
			require.NoError(t, err)
			defer c.Close()
			ok := func(_ any, err error) { t.Helper(); require.NoError(t, err) }
			ok(c.UserAdd(t.Context(), "root", "secret"))
			ok(c.UserGrantRole(t.Context(), "root", "root"))
			ok(c.AuthEnable(t.Context()))
			l.run(t, "ENDPOINT="+url, "CACERT="+file("ca.pem"), "USER_NAME=root", "PASSWORD=secret")
		})
	}
}
