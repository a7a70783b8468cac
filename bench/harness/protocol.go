// SPDX-License-Identifier: Apache-2.0

package harness

import "time"

// A Question goes to a child process. Without any field it asks for the usage of the process.
type Question struct {
	Open    *Setup        `json:"open,omitempty"`     // starts the system: the first question
	Prepare *Load         `json:"prepare,omitempty"`  // prepares a workload, in place of the one before
	Run     time.Duration `json:"runNanos,omitempty"` // runs the workload
	Profile string        `json:"profile,omitempty"`  // begins profiles, as the files Profile.cpu and Profile.alloc
	Stop    bool          `json:"stop,omitempty"`     // ends the profiles
}

// An Answer comes from a child process, one for each question.
type Answer struct {
	Addrs      []string `json:"addrs,omitempty"`      // of the endpoints, that of the leader first
	Durability string   `json:"durability,omitempty"` // of the system that was opened
	Sample     *Sample  `json:"sample,omitempty"`     // of the run
	Usage      Usage    `json:"usage"`                // of the process since its start
	Error      string   `json:"error,omitempty"`
}

// A Setup is the cluster that a child process is asked for.
type Setup struct {
	System    string `json:"system"`              // a name that the program knows
	Dir       string `json:"dir"`                 // for the data; empty at first
	Members   int    `json:"members"`             // voters
	Standbys  int    `json:"standbys,omitempty"`  // members without a vote
	InMemory  bool   `json:"inMemory,omitempty"`  // the cluster has no directories
	Endpoints bool   `json:"endpoints,omitempty"` // whether each member serves gRPC
	Snapshots uint64 `json:"snapshots,omitempty"` // entries of the log between snapshots; 0 for the default
}

// A Load is a workload and its parameters. Those that it does not use are zero.
type Load struct {
	Work       string `json:"work"`                 // a name that Prepare knows
	Callers    int    `json:"callers,omitempty"`    // goroutines that make calls; at least 1
	Place      Place  `json:"place,omitempty"`      // the members that they call
	Local      bool   `json:"local,omitempty"`      // reads are serializable
	Keys       int    `json:"keys,omitempty"`       // that are put before the workload runs
	Added      int    `json:"added,omitempty"`      // keys that are put amid the workload
	ValueBytes int    `json:"valueBytes,omitempty"` // of a value; 0 stands for 256
	Watchers   int    `json:"watchers,omitempty"`
	Leases     int    `json:"leases,omitempty"`
	Batch      int    `json:"batch,omitempty"` // keys of an operation that has many
	Rate       int    `json:"rate,omitempty"`  // operations a second that callers begin; 0 for as many as they can
	Ops        int    `json:"ops,omitempty"`   // of a run, which then ignores the time; 0 for a run of a given time
}

// A Place is the members that callers call.
type Place string

// The places. Callers are spread evenly over the members of OnAll.
const (
	OnLeader   Place = "leader" // the default
	OnFollower Place = "follower"
	OnAll      Place = "all"
)
