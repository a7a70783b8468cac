// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"encoding/json"
	"errors"
)

// The fields of a type without its methods, which would call themselves.
type (
	inspectionFields Inspection
	memberFields     InspectedMember
)

// An inspectionJSON has IDs in the place of numbers.
type inspectionJSON struct {
	inspectionFields
	ClusterID   MemberID `json:"cluster"`
	Incarnation MemberID `json:"incarnation"`
	Epoch       MemberID `json:"epoch"`
}

// MarshalJSON returns the Inspection as an object, which UnmarshalJSON reads: so what was found on one
// machine can be given to [Recover] on another. IDs are text in hex.
func (in Inspection) MarshalJSON() ([]byte, error) {
	in.Members = append([]InspectedMember{}, in.Members...) // empty ones are no null
	in.Snapshots = append([]InspectedSnapshot{}, in.Snapshots...)
	in.Damage = append([]Damage{}, in.Damage...)
	in.OtherFormats = append([]FormatError{}, in.OtherFormats...)
	return json.Marshal(inspectionJSON{
		inspectionFields(in), MemberID(in.ClusterID), MemberID(in.Incarnation), MemberID(in.Epoch),
	})
}

// UnmarshalJSON reads what MarshalJSON returns, and what coterie-inspect prints of a directory.
//
// Errors: what package encoding/json says, and one for what is not of a directory.
func (in *Inspection) UnmarshalJSON(b []byte) error {
	var read inspectionJSON
	if err := json.Unmarshal(b, &read); err != nil {
		return err
	}
	if read.Dir == "" {
		return errors.New("coterie: no inspection of a directory: it names none")
	}
	*in = Inspection(read.inspectionFields)
	in.ClusterID, in.Incarnation, in.Epoch = uint64(read.ClusterID), uint64(read.Incarnation), uint64(read.Epoch)
	return nil
}

// A memberJSON has an ID in the place of a number.
type memberJSON struct {
	memberFields
	Incarnation MemberID `json:"incarnation"`
}

// MarshalJSON returns the member as an object. IDs are text in hex.
func (m InspectedMember) MarshalJSON() ([]byte, error) {
	return json.Marshal(memberJSON{memberFields(m), MemberID(m.Incarnation)})
}

// UnmarshalJSON reads what MarshalJSON returns. Errors: what package encoding/json says.
func (m *InspectedMember) UnmarshalJSON(b []byte) error {
	var read memberJSON
	if err := json.Unmarshal(b, &read); err != nil {
		return err
	}
	*m = InspectedMember(read.memberFields)
	m.Incarnation = uint64(read.Incarnation)
	return nil
}
