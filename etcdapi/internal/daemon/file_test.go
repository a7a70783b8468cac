// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFileOfEtcdIsRead(t *testing.T) {
	s, err := Parse([]string{"--config-file", "testdata/etcd.yml", "--name=ignored", "--memory-mlock"}, []string{"ETCD_NAME=ignored"})
	require.NoError(t, err)
	require.Equal(t, "a", s.Name)
	require.Equal(t, "/var/lib/etcd", s.DataDir)
	require.EqualValues(t, 5000, s.Snapshots)
	require.Equal(t, []string{"https://10.0.0.1:2379", "http://127.0.0.1:2379"}, s.Listen.Client.strings())
	require.Equal(t, KeepAlive{5 * time.Second, time.Hour, 10 * time.Second}, s.KeepAlive)
	require.Equal(t, Security{
		CertFile: "server.pem", KeyFile: "server.key", ClientCertAuth: true, TrustedCAFile: "ca.pem", AllowedCNs: stringList{"one", "two"},
	}, s.Client)
	require.Equal(t, Security{
		CertFile: "peer.pem", KeyFile: "peer.key", ClientCertAuth: true, TrustedCAFile: "ca.pem", AllowedHostnames: stringList{"a.example.com"},
	}, s.Peer)
	require.Equal(t, stringList{"*"}, s.Origins)
	require.Equal(t, "1", s.Retention)
	require.True(t, s.Pprof)
	require.True(t, s.Given("initial-cluster"))
	require.Equal(t, []string{
		"testdata/etcd.yml: the key discovery is unknown and ignored", "testdata/etcd.yml: the key proxy is unknown and ignored",
	}, s.Warnings)
	fromEnvironment, err := Parse(nil, []string{"ETCD_CONFIG_FILE=testdata/etcd.yml"})
	require.NoError(t, err)
	require.Equal(t, s, fromEnvironment)
}

func TestWrongFilesAreRejected(t *testing.T) {
	name := filepath.Join(t.TempDir(), "etcd.yml")
	for text, contents := range map[string]string{
		"yaml: ":                              "name: [",
		"invalid value soon for":              "election-timeout: soon",
		"a map[string]interface":              "name: {a: b}",
		"invalid value [a b] for name":        "name: [a, b]",
		"for initial-cluster":                 "initial-cluster: [a=http://a:1, b=http://b:1]",
		"invalid peer-transport-security":     "peer-transport-security: yes",
		"--max-wals=9":                        "max-wals: 9",
		"--socket-reuse-port=true":            "socket-options: {reuse-port: true}",
		"client-transport-security.cert-file": "client-transport-security: {cert-file: {a: b}}",
		"--peer-client-cert-file=a.pem":       "peer-transport-security: {client-cert-file: a.pem}",
	} {
		require.NoError(t, os.WriteFile(name, []byte(contents), 0o600))
		_, err := Parse([]string{"--config-file", name}, nil)
		require.ErrorContains(t, err, text, contents)
	}
	_, err := Parse([]string{"--config-file", name + ".missing"}, nil)
	require.ErrorIs(t, err, fs.ErrNotExist)
}
