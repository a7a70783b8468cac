// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"fmt"
	"net/http"
	"strings"
)

// A node is ready as long as it is behind by no more than these.
const (
	readyLag     = 1000        // entries that are committed and not applied
	readySilence = leaderGrace // election timeouts since the node heard the leader
)

// HealthHandler returns an HTTP handler with a liveness and a readiness endpoint. The first decides whether
// to restart a process, the second whether to send it work:
//
//   - /livez is 200 unless the node has stopped by a fault, for instance because its disk failed. It is 200
//     without a quorum, on a full disk, and after Close: restarting the process would repair none of them.
//   - /readyz is 200 while the node can serve. The node is open. It knows a leader, or has lost it less than
//     three election timeouts ago. It has heard a leader within three election timeouts. It has applied all
//     but 1000 of the entries that it knows to be committed. Its disk takes writes: the system has not
//     refused to write the log for an election timeout, after which this node refuses writes itself, and no
//     write to the log has hung for Config.DiskTimeout. A node at its quota is ready, because it serves reads.
//
// The time without a leader allows for elections. After a crash of the leader the other nodes stay ready
// while they elect another, and calls wait for it. Without a quorum they are not ready once that time is over.
// A node that has not heard a leader since it was opened is not ready.
//
// Otherwise the endpoints answer 503, with the reasons in the body, one line for each check. With "?verbose"
// the body also lists the checks that pass. The answers come from [Node.Status]: at once, without asking other
// nodes. The handler may be used as soon as the node is open, and until after it is closed. Other paths are
// 404, methods other than GET and HEAD 405. Use [http.StripPrefix] to mount the handler below another path.
func HealthHandler(n *Node) http.Handler {
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
		_, _ = w.Write([]byte(text)) // the error is of a client that has gone
	})
}

// A check is one condition of a node's health. fault is empty if the check passes.
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
	case s.DiskRefused >= cfg.ElectionTimeout: // the same bound after which the node refuses writes: see room
		disk.fault = fmt.Sprintf("the log could not be written for %v: %v", s.DiskRefused, s.DiskError)
	case s.DiskStalled >= cfg.DiskTimeout:
		disk.fault = fmt.Sprintf("a write to it has hung for %v", s.DiskStalled)
	}
	return append(live(s), open, leader, contact, applied, disk)
}

// report returns the body of an answer, and whether all checks pass.
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
