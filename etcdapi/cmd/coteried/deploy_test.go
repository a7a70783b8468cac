// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.yaml.in/yaml/v3"

	"github.com/coterie-kv/coterie/etcdapi/internal/certs"
	"github.com/coterie-kv/coterie/etcdapi/internal/daemon"
)

// deployDir has the files that these tests run. The command lines are unchanged, except that addresses are on loopback
// and directories are temporary.
const deployDir = "../../../deploy"

func readDeployed(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(deployDir, name))
	require.NoError(t, err)
	return b
}

// A deployed is a member that a file describes.
type deployed struct {
	args, env []string
	hosts     []string          // the names and addresses by which others reach it
	published map[string]string // a port of its host to its own port, of a container
}

// A compose is the part of a compose file that the tests use.
type compose struct {
	Services map[string]struct {
		Command, Ports, Volumes []string
	}
}

func composeMembers(t *testing.T, names ...string) (members []*deployed) {
	t.Helper()
	for _, name := range names {
		var file compose
		require.NoError(t, yaml.Unmarshal(readDeployed(t, name), &file), name)
		for service, s := range file.Services {
			require.Equal(t, "coteried", s.Command[0])
			m := &deployed{args: s.Command[1:], hosts: []string{service}, published: map[string]string{}}
			if address := net.ParseIP(advertised(t, m.args)); address != nil {
				m.hosts = []string{address.String()}
			}
			for _, p := range s.Ports {
				host, own, _ := strings.Cut(p, ":")
				m.published[host] = own
			}
			members = append(members, m)
		}
	}
	return members
}

// advertised returns the host of the peer URL of a command line.
func advertised(t *testing.T, args []string) string {
	t.Helper()
	for _, a := range args {
		if u, ok := strings.CutPrefix(a, "--initial-advertise-peer-urls="); ok {
			return address.FindStringSubmatch(u)[1]
		}
	}
	t.Fatalf("no peer URL in %q", args)
	return ""
}

func kubernetesMembers(t *testing.T) (members []*deployed) {
	t.Helper()
	type statefulSet struct {
		Kind     string
		Metadata struct{ Name string }
		Spec     struct {
			Replicas    int
			ServiceName string `yaml:"serviceName"`
			Template    struct {
				Spec struct{ Containers []struct{ Command []string } }
			}
		}
	}
	for d := yaml.NewDecoder(bytes.NewReader(readDeployed(t, "kubernetes/coteried.yaml"))); ; {
		var s statefulSet
		if err := d.Decode(&s); err == io.EOF {
			return members
		} else {
			require.NoError(t, err)
		}
		if s.Kind != "StatefulSet" {
			continue
		}
		for i := range s.Spec.Replicas {
			pod := fmt.Sprintf("%s-%d", s.Metadata.Name, i)
			m := &deployed{hosts: []string{pod + "." + s.Spec.ServiceName}}
			for _, a := range s.Spec.Template.Spec.Containers[0].Command[1:] {
				m.args = append(m.args, strings.ReplaceAll(a, "$(POD_NAME)", pod))
			}
			members = append(members, m)
		}
	}
}

// systemdMembers returns the member of coteried.env, and those of the other hosts, with their names and addresses.
func systemdMembers(t *testing.T) (members []*deployed) {
	t.Helper()
	unit := string(readDeployed(t, "systemd/coteried.service"))
	require.Contains(t, unit, "\nExecStart=/usr/local/bin/coteried\n")
	require.Contains(t, unit, "\nRestart=on-failure\n", "a removed member exits with 0, and is not started again")
	for i := range 3 {
		m := &deployed{hosts: []string{fmt.Sprintf("192.168.3.%d", 5+i)}}
		for line := range strings.Lines(string(readDeployed(t, "systemd/coteried.env"))) {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			if !strings.HasPrefix(line, "ETCD_INITIAL_CLUSTER=") {
				line = strings.NewReplacer("node1", fmt.Sprint("node", i+1), "192.168.3.5", m.hosts[0]).Replace(line)
			}
			m.env = append(m.env, line)
		}
		members = append(members, m)
	}
	return members
}

// address finds the addresses in URLs.
var address = regexp.MustCompile(`://([^/:,]+):(\d+)`)

// A translation gives members addresses on loopback, and directories.
type translation struct {
	t       *testing.T
	members []*deployed
	addrs   map[string]string
	certs   string
}

func (tr *translation) address(key string) string {
	if _, ok := tr.addrs[key]; !ok {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(tr.t, err)
		require.NoError(tr.t, l.Close())
		tr.addrs[key] = l.Addr().String()
	}
	return tr.addrs[key]
}

// text replaces the addresses and the directories in a flag or a variable of a member.
func (tr *translation) text(m *deployed, dir, text string) string {
	text = address.ReplaceAllStringFunc(text, func(found string) string {
		parts := address.FindStringSubmatch(found)
		host, port := parts[1], parts[2]
		owner := m
		switch own, published := m.published[port]; {
		case host == "127.0.0.1" && published:
			port = own
		case host == "127.0.0.1":
			port = "local " + port
		case host != "0.0.0.0":
			i := slices.IndexFunc(tr.members, func(other *deployed) bool { return slices.Contains(other.hosts, host) })
			require.GreaterOrEqual(tr.t, i, 0, "no member has the host of %s", found)
			owner = tr.members[i]
		}
		return "://" + tr.address(owner.hosts[0]+" "+port)
	})
	return strings.NewReplacer("/etcd-data", dir, "/var/lib/coteried", dir, "/certs/", tr.certs+"/").Replace(text)
}

// runDeployed runs members with their own command lines, and uses the cluster. It returns the translation.
func runDeployed(t *testing.T, members []*deployed, certs string) *translation {
	t.Helper()
	require.NotEmpty(t, members)
	tr := &translation{t: t, members: members, addrs: map[string]string{}, certs: certs}
	var processes []*process
	for _, m := range members {
		_, err := daemon.Parse(m.args, m.env)
		require.NoError(t, err)
		dir := filepath.Join(t.TempDir(), "data")
		var args, env []string
		for _, a := range m.args {
			args = append(args, tr.text(m, dir, a))
		}
		for _, e := range m.env {
			env = append(env, tr.text(m, dir, e))
		}
		processes = append(processes, runWith(t, env, args...))
	}
	var config *tls.Config
	scheme := "http"
	if certs != "" {
		info := transport.TLSInfo{
			CertFile: filepath.Join(certs, "root.pem"), KeyFile: filepath.Join(certs, "root-key.pem"), TrustedCAFile: filepath.Join(certs, "ca.pem"),
		}
		var err error
		config, err = info.ClientConfig()
		require.NoError(t, err)
		scheme = "https"
	}
	for i, p := range processes {
		p.ready()
		c := dial(t, config, scheme+"://"+tr.address(members[i].hosts[0]+" 2379"))
		put(t, c, fmt.Sprint("k", i), "v")
		require.Equal(t, "v", value(t, c, "k0"))
		all, err := c.MemberList(t.Context())
		require.NoError(t, err)
		require.Len(t, all.Members, len(members))
	}
	return tr
}

func TestComposeFilesServe(t *testing.T) {
	for name, files := range map[string][]string{
		"one member":  {"compose/single.yml"},
		"one host":    {"compose/one-host.yml"},
		"three hosts": {"compose/three-hosts-1.yml", "compose/three-hosts-2.yml", "compose/three-hosts-3.yml"},
	} {
		t.Run(name, func(t *testing.T) {
			processTest(t)
			runDeployed(t, composeMembers(t, files...), "")
		})
	}
}

// certsCommand returns the arguments of "coteried certs" in the TLS file, with another directory.
func certsCommand(t *testing.T, dir string) []string {
	t.Helper()
	_, command, ok := strings.Cut(string(readDeployed(t, "compose/tls.yml")), "coteried certs --dir certs ")
	require.True(t, ok)
	command, _, _ = strings.Cut(command, "\n")
	return append([]string{"--dir", dir}, strings.Fields(command)...)
}

func TestComposeFileWithTLSServes(t *testing.T) {
	t.Run("coteried certs", func(t *testing.T) {
		processTest(t)
		dir := filepath.Join(t.TempDir(), "certs")
		var out bytes.Buffer
		require.Zero(t, certs.Run(t.Context(), certsCommand(t, dir), &out, &out), out.String())
		runDeployed(t, composeMembers(t, "compose/tls.yml"), dir)
	})
	t.Run("gen-certs", func(t *testing.T) {
		processTest(t)
		for _, program := range []string{"bash", "openssl"} {
			if _, err := exec.LookPath(program); err != nil {
				t.Skipf("needs %s", program)
			}
		}
		dir := filepath.Join(t.TempDir(), "certs")
		out, err := exec.CommandContext(t.Context(), filepath.Join(deployDir, "gen-certs"), certsCommand(t, dir)[1:]...).CombinedOutput()
		require.NoError(t, err, string(out))
		runDeployed(t, composeMembers(t, "compose/tls.yml"), dir)
	})
	t.Run("cfssl", func(t *testing.T) {
		processTest(t)
		dir := filepath.Join(t.TempDir(), "certs")
		cfssl(t, dir, certsCommand(t, dir)[2:]...)
		runDeployed(t, composeMembers(t, "compose/tls.yml"), dir)
	})
}

// cfssl makes certificates as the documentation of etcd does: each is for servers and clients, and has an RSA key.
func cfssl(t *testing.T, dir string, subjects ...string) {
	t.Helper()
	for _, program := range []string{"cfssl", "cfssljson"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s", program)
		}
	}
	require.NoError(t, os.Mkdir(dir, 0o700))
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		return name
	}
	generate := func(name string, args ...string) {
		answer, err := exec.CommandContext(t.Context(), "cfssl", append([]string{"gencert"}, args...)...).Output()
		require.NoError(t, err)
		cmd := exec.CommandContext(t.Context(), "cfssljson", "-bare", filepath.Join(dir, name))
		cmd.Stdin = bytes.NewReader(answer)
		require.NoError(t, cmd.Run())
	}
	const request = `{"CN": %q, "hosts": [%s], "key": {"algo": "rsa", "size": 2048}, "names": [{"O": "etcd", "OU": "etcd Security"}]}`
	generate("ca", "-initca", write("ca-csr.json", fmt.Sprintf(request, "etcd-root-ca", "")))
	config := write("gencert.json", `{"signing": {"default": {"usages": ["signing", "key encipherment", "server auth", "client auth"], "expiry": "87600h"}}}`)
	for _, s := range subjects {
		name, hosts, member := strings.Cut(s, "=")
		if member {
			hosts = `"` + strings.ReplaceAll(hosts, ",", `","`) + `"`
		}
		generate(name, "-ca", filepath.Join(dir, "ca.pem"), "-ca-key", filepath.Join(dir, "ca-key.pem"), "-config", config,
			write(name+"-csr.json", fmt.Sprintf(request, name, hosts)))
	}
}

func TestKubernetesFileServes(t *testing.T) {
	processTest(t)
	members := kubernetesMembers(t)
	require.Len(t, members, 3)
	tr := runDeployed(t, members, "")
	probes := regexp.MustCompile(`httpGet: \{path: (\S+), port: metrics\}`).FindAllStringSubmatch(string(readDeployed(t, "kubernetes/coteried.yaml")), -1)
	require.Len(t, probes, 2)
	for _, probe := range probes {
		r, err := http.Get("http://" + tr.address(members[0].hosts[0]+" 2381") + probe[1])
		require.NoError(t, err)
		require.NoError(t, r.Body.Close())
		require.Equal(t, http.StatusOK, r.StatusCode)
	}
}

func TestSystemdVariablesServe(t *testing.T) {
	processTest(t)
	runDeployed(t, systemdMembers(t), "")
}

// The test cannot build the image, but it builds the programs in it.
func TestDockerfileBuildsPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("lists packages")
	}
	builds := regexp.MustCompile(`(?m)^RUN cd (\S+) && go build .* (\S+)$`).FindAllStringSubmatch(string(readDeployed(t, "Dockerfile")), -1)
	require.Len(t, builds, 2)
	for _, b := range builds {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Name}}", b[2])
		cmd.Dir = filepath.Join(deployDir, "..", b[1])
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		require.Equal(t, "main\n", string(out))
	}
}
