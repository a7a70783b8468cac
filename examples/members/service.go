// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/coterie-kv/coterie"
)

// A service is one instance of a service that has a node inside. The fields are its flags that
// coterie.Config does not have.
type service struct {
	http         string
	certificates string
	join         string
	nonVoter     bool
}

// serve runs the instance until ctx ends, with SIGTERM, or its node stops by itself: because it left, was
// removed, or its disk failed.
func (s *service) serve(ctx context.Context, cfg coterie.Config) error {
	var err error
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stdout, nil))
	cfg.NonVoter = s.nonVoter
	if s.join != "" {
		cfg.Join = []string{s.join}
	}
	file := func(name string) string { return filepath.Join(s.certificates, name) }
	if cfg.TLS, err = coterie.LoadTLS(file("ca.pem"), file("cert.pem"), file("key.pem")); err != nil {
		return err
	}
	node, err := coterie.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	// The interface is up before the node is ready, because it reports whether the node is.
	listener, err := net.Listen("tcp", s.http)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: routes(node)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	select {
	case <-ctx.Done():
	case <-node.Done():
	case err := <-served:
		return err
	}
	// First finish the calls that have begun, which need the node. Then close the node, which hands
	// leadership over if it leads. So no call fails because this instance is restarted.
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(finish); err != nil {
		return err
	}
	if err := node.Close(); err != nil {
		return err
	}
	return node.Status().Err // the fault that stopped the node; nil after Leave
}

// routes returns the interface of an instance: for its clients, for an orchestrator, and for operators. A
// real service authenticates its callers.
func routes(node *coterie.Node) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, answer func(*http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			value, err := answer(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			_ = json.NewEncoder(w).Encode(value) // the error is of a caller that has gone
		})
	}

	// For clients.
	handle("PUT /keys/{key}", func(r *http.Request) (any, error) {
		value, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		return node.Put(r.Context(), r.PathValue("key"), string(value))
	})
	handle("GET /count/{prefix}", func(r *http.Request) (any, error) {
		found, err := node.Get(r.Context(), r.PathValue("prefix"), coterie.WithPrefix(), coterie.WithCountOnly())
		if err != nil {
			return nil, err
		}
		return found.Count, nil
	})

	// For an orchestrator.
	mux.Handle("GET /livez", coterie.HealthHandler(node))
	mux.Handle("GET /readyz", coterie.HealthHandler(node))

	// For operators.
	handle("GET /ready", func(r *http.Request) (any, error) {
		// Without a deadline Ready waits until the node is ready. With one its error has the reason.
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		return nil, node.Ready(ctx)
	})
	handle("GET /members", func(r *http.Request) (any, error) { return node.Members(r.Context()) })
	handle("DELETE /members/{name}", func(r *http.Request) (any, error) {
		id, err := find(r.Context(), node, r.PathValue("name"))
		if err != nil {
			return nil, err
		}
		return nil, node.RemoveMember(r.Context(), id)
	})
	handle("POST /members/{name}/promote", func(r *http.Request) (any, error) {
		id, err := find(r.Context(), node, r.PathValue("name"))
		if err != nil {
			return nil, err
		}
		return nil, node.PromoteMember(r.Context(), id)
	})
	handle("POST /leave", func(r *http.Request) (any, error) { return nil, node.Leave(r.Context()) })
	handle("GET /hash", func(r *http.Request) (any, error) {
		rev, err := strconv.ParseInt(r.FormValue("rev"), 10, 64)
		if err != nil {
			return nil, err
		}
		return node.Hash(r.Context(), rev)
	})
	mux.HandleFunc("GET /backup", func(w http.ResponseWriter, r *http.Request) {
		// After Ready, the backup has everything that any node has answered before this call.
		err := node.Ready(r.Context())
		if err == nil {
			_, err = node.Backup(r.Context(), w)
		}
		if err != nil {
			panic(http.ErrAbortHandler) // the caller must notice that its backup is incomplete
		}
	})
	return mux
}

// find returns the ID of the member with a name.
func find(ctx context.Context, node *coterie.Node, name string) (coterie.MemberID, error) {
	members, err := node.Members(ctx)
	if err != nil {
		return 0, err
	}
	for _, m := range members {
		if m.Name == name {
			return m.ID, nil
		}
	}
	return 0, errors.Join(coterie.ErrMemberNotFound, fmt.Errorf("no member is named %q", name))
}
