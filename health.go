// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"fmt"
	"net/http"
	"strings"
)

// What a node may be behind by, and still be ready.
const (
	readyLag     = 1000        // entries
	readySilence = leaderGrace // election timeouts since the leader was heard
)

// Health returns a handler of two paths, for who decides whether a process is to be killed and whether
// it is to be given work:
//
//   - /livez is 200 unless the node has stopped by a fault, as when its disk failed. It is 200 without
//     a quorum, on a full disk, and after Close: to start the process again would mend none of them.
//   - /readyz is 200 while the node can serve: it is open, knows a leader or has lost it less than three
//     election timeouts ago, has heard a leader within three election timeouts, has applied what it
//     knows to be committed, but for 1000 entries, and its disk takes writes: the system has not
//     refused to write the log for an election timeout, since when this node refuses writes itself, and
//     no write to it has hung for Config.DiskTimeout. At its quota a node is ready: it reads.
//
// The time without a leader is for elections: after a crash of the leader the other nodes stay ready
// while they elect another, and calls wait for it. Without a quorum they are not ready once it is over.
// A node that has not heard a leader since it was opened is not ready.
//
// Otherwise they are 503, with the reasons in the body, a line for each check; "?verbose" has the lines
// of those that pass, too. They answer from [Node.Status]: at once, without asking other nodes. The
// handler may be used from when the node is open until after it is closed. Other paths are 404, methods
// other than GET and HEAD 405; mount it below another path with [http.StripPrefix].
func Health(n *Node) http.Handler {
	cfg := &n.cfg
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var checks []check
		switch s := n.Status(); r.URL.Path {
		case "/livez":
			checks = live(&s)
		case "/readyz":
			checks = ready(&s, cfg)
		default:
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		text, ok := report(strings.TrimPrefix(r.URL.Path, "/"), checks, r.URL.Query().Has("verbose"))
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write([]byte(text)) // a caller that has gone is not told
	})
}

// A check is one condition of a node's health, and why it fails, if it does.
type check struct{ name, fault string }

func live(s *Status) []check {
	running := check{name: "running"}
	if s.Err != nil {
		running.fault = s.Err.Error()
	}
	return []check{running}
}

func ready(s *Status, cfg *Config) []check {
	open, leader := check{name: "open"}, check{name: "leader"}
	contact, applied, disk := check{name: "contact"}, check{name: "applied"}, check{name: "disk"}
	if s.Role == RoleClosed {
		open.fault = "the node is closed"
	}
	switch grace := leaderGrace * cfg.ElectionTimeout; {
	case s.Leader != 0 || s.Role == RoleClosed:
	case s.LastContact < 0:
		leader.fault = "no leader is known"
	case s.Leaderless > grace:
		leader.fault = fmt.Sprintf("no leader is known for %v", s.Leaderless)
	}
	switch {
	case s.LastContact < 0:
		contact.fault = "no leader was ever heard"
	case s.LastContact > readySilence*cfg.ElectionTimeout:
		contact.fault = fmt.Sprintf("the leader was last heard %v ago", s.LastContact)
	}
	if lag := s.lag(); lag > readyLag {
		applied.fault = fmt.Sprintf("%d committed entries are not applied", lag)
	}
	switch {
	case s.DiskRefused >= cfg.ElectionTimeout: // as room has it
		disk.fault = fmt.Sprintf("the log could not be written for %v: %v", s.DiskRefused, s.DiskError)
	case s.DiskStalled >= cfg.DiskTimeout:
		disk.fault = fmt.Sprintf("a write to it has hung for %v", s.DiskStalled)
	}
	return append(live(s), open, leader, contact, applied, disk)
}

// report is the body of an answer, and whether all is well.
func report(path string, checks []check, verbose bool) (text string, ok bool) {
	var b strings.Builder
	ok = true
	for _, c := range checks {
		switch {
		case c.fault != "":
			ok = false
			fmt.Fprintf(&b, "[-] %s: %s\n", c.name, c.fault)
		case verbose:
			fmt.Fprintf(&b, "[+] %s\n", c.name)
		}
	}
	if !ok {
		return b.String() + path + " fails\n", false
	}
	return b.String() + path + " passes\n", true
}
