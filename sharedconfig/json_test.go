// SPDX-License-Identifier: Apache-2.0

package sharedconfig_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/sharedconfig"
)

func TestErrorsAreTextInJSON(t *testing.T) {
	bad := &sharedconfig.RejectedError{Key: "limits", Revision: 5, Err: errors.New("too high")}
	text, err := json.Marshal(bad.Error())
	require.NoError(t, err)
	for want, v := range map[string]any{
		`{"key":"limits","revision":5,"err":"too high"}`:                     bad,
		`{"value":1,"revision":5}`:                                           sharedconfig.Current[int]{Value: 1, Revision: 5},
		`{"value":2,"revision":5,"err":` + string(text) + `}`:                sharedconfig.Current[int]{Value: 2, Revision: 5, Err: bad},
		`{"revision":5,"document":"1","value":1}`:                            sharedconfig.Version[int]{Revision: 5, Document: "1", Value: 1},
		`{"revision":5,"document":"x","value":0,"err":` + string(text) + `}`: &sharedconfig.Version[int]{Revision: 5, Document: "x", Err: bad},
	} {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		require.JSONEq(t, want, string(b))
	}
}
