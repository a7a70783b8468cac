// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/fault"
)

func TestMetadataIsEncoded(t *testing.T) {
	m := map[string]string{"zone": "eu-1", "http": "a:80", "z": "ü"}
	require.Equal(t, m, Decode(Encode(m)))
	for range 100 { // maps have a random order
		require.Equal(t, Encode(m), Encode(map[string]string{"z": "ü", "http": "a:80", "zone": "eu-1", "none": ""}))
	}
	require.Empty(t, Encode(map[string]string{"none": ""}))
	require.Nil(t, Decode(""))
	require.Nil(t, Decode("\xff"), "malformed")
	require.Nil(t, Decode("\x03\x01\xff"), "malformed pair")
}

func TestUpdateSetsAndRemovesKeys(t *testing.T) {
	m := Encode(map[string]string{"zone": "eu-1", "http": "a:80"})
	m, err := Update(m, map[string]string{"http": "", "rack": "7", "absent": ""})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"zone": "eu-1", "rack": "7"}, Decode(m))
	_, err = Update(m, map[string]string{"k": strings.Repeat("v", MaxBytes-len("zoneeu-1rack7"))})
	require.ErrorIs(t, err, fault.ErrInvalidOption, "the result is too large")
	m, err = Update(m, map[string]string{"zone": "", "rack": ""})
	require.NoError(t, err)
	require.Empty(t, m)
}

func TestMetadataIsBounded(t *testing.T) {
	require.NoError(t, Check(nil))
	require.NoError(t, Check(map[string]string{"k": strings.Repeat("v", MaxBytes-1)}))
	require.ErrorIs(t, Check(map[string]string{"k": strings.Repeat("v", MaxBytes)}), fault.ErrInvalidOption)
	require.ErrorIs(t, Check(map[string]string{"": "v"}), fault.ErrInvalidOption)
	require.ErrorIs(t, Check(map[string]string{"k": "\xff"}), fault.ErrInvalidOption)
}
