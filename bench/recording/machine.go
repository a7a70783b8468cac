// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// Etcd is the module of etcd's server.
const Etcd = "go.etcd.io/etcd/server/v3"

// A Machine is the place of a measurement, and what was measured there. What is unknown is empty: older files lack the later
// fields, and systems other than Linux have no /proc.
type Machine struct {
	Measured   time.Time         `json:"measured"`
	Go         string            `json:"go"`
	System     string            `json:"system"`
	CPUs       int               `json:"cpus"`
	CPU        string            `json:"cpu,omitempty"` // the model
	Kernel     string            `json:"kernel,omitempty"`
	FileSystem string            `json:"fileSystem,omitempty"` // the type of the one that has the data of the systems
	Commit     string            `json:"commit,omitempty"`     // of coterie, with "-dirty" if other code was measured
	Versions   map[string]string `json:"versions,omitempty"`   // of etcd and of the rivals, by their modules
}

// ThisMachine returns the machine of this process, at the present time. The data of the systems is below dir, by default the
// directory for temporary files. The working directory is that of bench: it tells the commit and the versions of the rivals.
func ThisMachine(dir string) Machine {
	return Machine{
		Measured:   time.Now().UTC(),
		Go:         runtime.Version(),
		System:     runtime.GOOS + "/" + runtime.GOARCH,
		CPUs:       runtime.NumCPU(),
		CPU:        cpuModel(content("/proc/cpuinfo")),
		Kernel:     strings.TrimSpace(content("/proc/sys/kernel/osrelease")),
		FileSystem: fileSystem(content("/proc/mounts"), cmp.Or(dir, os.TempDir())),
		Commit:     commit(),
		Versions:   versions(),
	}
}

// content returns the content of a file, if it can be read.
func content(file string) string {
	text, _ := os.ReadFile(file)
	return string(text)
}

// cpuModel returns the model of the first CPU of /proc/cpuinfo.
func cpuModel(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// fileSystem returns the type of the file system of a directory. Of the mounts with the longest path, the last one counts.
func fileSystem(mounts, dir string) (kind string) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	longest := 0
	for line := range strings.Lines(mounts) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		at := strings.TrimSuffix(fields[1], "/") + "/"
		if strings.HasPrefix(dir+"/", at) && len(at) >= longest {
			longest, kind = len(at), fields[2]
		}
	}
	return kind
}

// commit returns the commit of the working directory. It asks git, because `go run` does not note the commit in the program.
// Only changes of code make it dirty: the files of earlier measurements may have changed.
func commit() string {
	head, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return ""
	}
	name := strings.TrimSpace(string(head))
	if changed, err := exec.Command("git", "status", "--porcelain", "--", ":/*.go", ":/*.mod").Output(); err != nil || len(changed) > 0 {
		name += "-dirty"
	}
	return name
}

// versions returns the version of etcd in this program, and those that the modules of the rivals require.
func versions() map[string]string {
	all := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == Etcd {
				all[m.Path] = m.Version
			}
		}
	}
	files, _ := filepath.Glob("rivals/*/go.mod")
	for _, file := range files {
		addRequired(all, content(file))
	}
	return all
}

// addRequired adds the versions that a go.mod file requires. Indirect ones have a comment, and coterie's modules have the commit.
func addRequired(versions map[string]string, mod string) {
	for _, found := range regexp.MustCompile(`(?m)^(?:require)?\s+(\S+) (v\S+)$`).FindAllStringSubmatch(mod, -1) {
		if !strings.HasPrefix(found[1], "github.com/coterie-kv/") {
			versions[found[1]] = found[2]
		}
	}
}
