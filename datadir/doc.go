// SPDX-License-Identifier: Apache-2.0

// Package datadir reads the data directory of a coterie node that is not running, restarts a cluster from one
// directory when its majority is lost for good, and changes the storage of a directory. The program coterie-inspect
// calls it. Every function detects the storage of a directory.
//
// # Inspecting
//
// [Inspect] verifies a directory: every entry of the log, and every snapshot to its last byte. It returns
// everything that can be read as an [Inspection], and changes nothing. [InspectBackup] does the same for a
// backup of [coterie.Node.Backup].
//
// # Recovering
//
// A cluster that has lost its majority cannot elect a leader. [Recover] makes it continue with a single
// member, from the directory of one survivor. Before that, inspect the directories of all other survivors and
// pass the Inspections to Recover: it refuses a directory if another survivor has more. The [Recovery] says
// which data was kept, and whether acknowledged writes may be lost. docs/operations.md describes the procedure.
//
// # Converting
//
// [Convert] changes the storage of a directory, between segments and package boltlog: it copies and compares
// everything, and keeps the old files. docs/operations.md describes the procedure for a cluster.
//
// # JSON
//
// An [Inspection] can be marshalled on one machine and unmarshalled on another, so that survivors on several
// hosts can be compared. coterie-inspect -json prints that form. IDs are text of 16 hex digits, because many
// readers of JSON round numbers of 64 bits.
package datadir
