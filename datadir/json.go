// SPDX-License-Identifier: Apache-2.0

package datadir

import (
	"encoding/json"
	"errors"

	"github.com/coterie-kv/coterie"
)

// inspectionFields has the fields of an Inspection without its methods, which would call themselves.
type inspectionFields Inspection

// MarshalJSON returns the Inspection as a JSON object, which UnmarshalJSON reads: so an Inspection of one
// machine can be passed to [Recover] on another. IDs are text in hex, and a list is never null.
func (in Inspection) MarshalJSON() ([]byte, error) {
	in.Members = append([]Member{}, in.Members...)
	in.Snapshots = append([]Snapshot{}, in.Snapshots...)
	in.DamagedFiles = append([]DamagedFile{}, in.DamagedFiles...)
	in.OtherFormats = append([]coterie.FormatError{}, in.OtherFormats...)
	return json.Marshal(inspectionFields(in))
}

// UnmarshalJSON reads the output of MarshalJSON, and the output of coterie-inspect -json for a directory. It
// ignores unknown fields.
//
// Errors: those of package encoding/json, and one for an object that does not describe a directory, or that
// lacks the indexes by which [Recover] compares survivors, because another version wrote it.
func (in *Inspection) UnmarshalJSON(b []byte) error {
	var read struct {
		inspectionFields
		DurableIndex *uint64 `json:"durableIndex"`
	}
	if err := json.Unmarshal(b, &read); err != nil {
		return err
	}
	switch {
	case read.Dir == "":
		return errors.New("datadir: the JSON object is not an inspection of a directory: it has no directory")
	case read.DurableIndex == nil:
		return errors.New("datadir: the JSON object is not an inspection by this version: it has no durableIndex")
	}
	*in = Inspection(read.inspectionFields)
	in.DurableIndex = *read.DurableIndex
	return nil
}

// recoveryFields has the fields of a Recovery without its methods, which would call themselves.
type recoveryFields Recovery

// MarshalJSON returns the Recovery as a JSON object. IDs are text in hex, and a list is never null.
func (r Recovery) MarshalJSON() ([]byte, error) {
	r.Voters = append([]Member{}, r.Voters...)
	return json.Marshal(recoveryFields(r))
}
