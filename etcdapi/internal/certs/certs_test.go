// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// mustRun runs the subcommand and returns its output.
func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	var out, complaints bytes.Buffer
	require.Zero(t, Run(t.Context(), args, &out, &complaints), complaints.String())
	return out.String()
}

func load(t *testing.T, dir, name string) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem"))
	require.NoError(t, err)
	return pair
}

func TestCertificatesAreForTheirUses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	mustRun(t, "--dir", dir, "node1=10.0.0.1,localhost,::1", "root")
	pem, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pem))
	verify := func(name, host string, use x509.ExtKeyUsage) error {
		_, err := load(t, dir, name).Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, KeyUsages: []x509.ExtKeyUsage{use}})
		return err
	}
	for _, host := range []string{"10.0.0.1", "localhost", "::1"} {
		require.NoError(t, verify("node1", host, x509.ExtKeyUsageServerAuth))
	}
	require.NoError(t, verify("node1", "", x509.ExtKeyUsageClientAuth), "a member is a client of the others")
	require.ErrorContains(t, verify("node1", "10.0.0.2", x509.ExtKeyUsageServerAuth), "certificate is valid for 10.0.0.1")
	require.NoError(t, verify("root", "", x509.ExtKeyUsageClientAuth))
	require.Error(t, verify("root", "", x509.ExtKeyUsageServerAuth))
	require.Equal(t, "root", load(t, dir, "root").Leaf.Subject.CommonName)
	info, err := os.Stat(filepath.Join(dir, "node1-key.pem"))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode())
}

func TestCAIssuesMoreCertificatesLater(t *testing.T) {
	dir := t.TempDir()
	mustRun(t, "--dir", dir, "--validity", "1h", "node1=localhost")
	ca := load(t, dir, "ca").Leaf
	mustRun(t, "node2=localhost", "--dir", dir)
	require.True(t, ca.Equal(load(t, dir, "ca").Leaf))
	node2 := load(t, dir, "node2").Leaf
	require.NoError(t, node2.CheckSignatureFrom(ca))
	require.Equal(t, ca.NotAfter, node2.NotAfter, "no certificate outlives its CA")
	require.WithinDuration(t, time.Now().Add(time.Hour), node2.NotAfter, time.Minute)
}

func TestExistingFilesStay(t *testing.T) {
	dir := t.TempDir()
	mustRun(t, "--dir", dir, "node1=localhost")
	for _, missing := range []string{"ca-key.pem", "ca.pem", "node1-key.pem"} {
		gone := filepath.Join(t.TempDir(), "gone")
		require.NoError(t, os.Rename(filepath.Join(dir, missing), gone))
		var complaints bytes.Buffer
		require.Equal(t, 1, Run(t.Context(), []string{"--dir", dir, "node1=localhost"}, &complaints, &complaints))
		require.Contains(t, complaints.String(), "is not replaced")
		require.NoFileExists(t, filepath.Join(dir, missing))
		require.NoError(t, os.Rename(gone, filepath.Join(dir, missing)))
	}
}

func TestWrongArgumentsOfCerts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	for _, args := range [][]string{
		{}, {"a", "a=localhost"}, {"ca"}, {"a/b"}, {"="}, {"a="}, {"a=x,"}, {"a-key"}, {"a", "--validity", "1s"}, {"--none"},
	} {
		var out, complaints bytes.Buffer
		require.Equal(t, 128, Run(t.Context(), append(args, "--dir", dir), &out, &complaints), "%q", args)
		require.Contains(t, complaints.String(), "Error: ")
	}
	require.NoDirExists(t, dir)
	require.Contains(t, mustRun(t, "-h"), "Usage: coteried certs")
}
