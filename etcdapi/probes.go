// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/grpc/status"

	"github.com/coterie-kv/coterie"
)

// A probe is a check of /livez or /readyz.
type probe struct {
	name  string
	check func(ctx context.Context) error
}

// handleProbes adds etcd's paths for the health of an endpoint.
func (s *server) handleProbes(mux *http.ServeMux) {
	local := probe{"serializable_read", func(ctx context.Context) error { return s.read(ctx, coterie.WithSerializable()) }}
	quorum := probe{"linearizable_read", func(ctx context.Context) error { return s.read(ctx) }}
	corruption := probe{"data_corruption", func(ctx context.Context) error { return s.checkAlarm(ctx, coterie.AlarmCorrupt) }}
	s.handleProbesOf(mux, "livez", local)
	s.handleProbesOf(mux, "readyz", corruption, local, quorum, probe{"non_learner", s.checkVote})
	mux.HandleFunc("/health", s.serveHealth)
}

// handleProbesOf adds a path for all probes of a kind, and one for each.
func (s *server) handleProbesOf(mux *http.ServeMux, kind string, all ...probe) {
	mux.HandleFunc("/"+kind, func(w http.ResponseWriter, r *http.Request) {
		excluded := r.URL.Query()["exclude"]
		s.serveProbes(w, r, kind, slices.DeleteFunc(slices.Clone(all), func(p probe) bool { return slices.Contains(excluded, p.name) }))
	})
	for _, p := range all {
		mux.HandleFunc("/"+kind+"/"+p.name, func(w http.ResponseWriter, r *http.Request) { s.serveProbes(w, r, kind, []probe{p}) })
	}
}

func (s *server) serveProbes(w http.ResponseWriter, r *http.Request, kind string, probes []probe) {
	if !onlyGet(w, r) {
		return
	}
	var list strings.Builder
	failed := false
	for _, p := range probes {
		err := p.check(r.Context())
		s.measures.countProbe(kind, p.name, err == nil)
		if err != nil {
			failed = true
			fmt.Fprintf(&list, "[-]%s failed: %s\n", p.name, errorText(err))
		} else {
			fmt.Fprintf(&list, "[+]%s ok\n", p.name)
		}
	}
	if failed {
		http.Error(w, list.String(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.URL.Query().Has("verbose") {
		fmt.Fprint(w, list.String())
	}
	fmt.Fprint(w, "ok\n")
}

// serveHealth serves /health, the oldest of etcd's probes.
func (s *server) serveHealth(w http.ResponseWriter, r *http.Request) {
	if !onlyGet(w, r) {
		return
	}
	reason := s.healthFault(r.Context(), r.URL.Query())
	s.measures.countHealth(reason == "")
	text, err := json.Marshal(struct {
		Health string `json:"health"`
		Reason string `json:"reason"`
	}{fmt.Sprint(reason == ""), reason})
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case reason != "":
		http.Error(w, string(text), http.StatusServiceUnavailable)
	default:
		_, _ = w.Write(text) // the error is of a client that has gone
	}
}

// healthFault returns the reason why this endpoint is not healthy, or "".
func (s *server) healthFault(ctx context.Context, query url.Values) string {
	excluded := query["exclude"]
	alarms, err := s.alarms(ctx)
	if err != nil {
		return "RANGE ERROR:" + errorText(err)
	}
	for _, a := range alarms {
		if !slices.Contains(excluded, a.Kind.String()) {
			return "ALARM " + a.Kind.String()
		}
	}
	var opts []coterie.GetOption
	if query.Get("serializable") == "true" {
		opts = append(opts, coterie.WithSerializable())
	} else if s.node.Leader() == 0 {
		return "RAFT NO LEADER"
	}
	if err := s.read(ctx, opts...); err != nil {
		return "RANGE ERROR:" + errorText(err)
	}
	return ""
}

// read reads a key to check that reads work. The probe has no user, so permissions are not checked.
func (s *server) read(ctx context.Context, opts ...coterie.GetOption) error {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	_, err := s.node.Get(ctx, "\x00", append(opts, coterie.WithKeysOnly())...)
	return err
}

func (s *server) checkAlarm(ctx context.Context, of coterie.AlarmKind) error {
	alarms, err := s.alarms(ctx)
	if err == nil && slices.ContainsFunc(alarms, func(a coterie.Alarm) bool { return a.Kind == of }) {
		err = fmt.Errorf("alarm activated: %v", of)
	}
	return err
}

// checkVote fails for a member without a vote, which etcd calls a learner.
func (s *server) checkVote(ctx context.Context) error {
	members, err := s.node.Members(ctx, coterie.WithSerializable())
	if err != nil {
		return err
	}
	if slices.ContainsFunc(members, func(m coterie.Member) bool { return m.ID == s.node.ID() && !m.Voter }) {
		return errors.New("not supported for learner")
	}
	return nil
}

// errorText returns the text that a client of gRPC gets.
func errorText(err error) string { return status.Convert(toStatus(err)).Message() }
