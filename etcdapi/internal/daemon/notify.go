// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"net"
	"strings"
)

// notify sends the state of the service to systemd, if systemd has started it: socket is $NOTIFY_SOCKET. See
// sd_notify(3).
func notify(socket, state string) error {
	if socket == "" {
		return nil
	}
	if name, ok := strings.CutPrefix(socket, "@"); ok {
		socket = "\x00" + name // a socket without a file
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err == nil {
		_, err = c.Write([]byte(state))
		c.Close()
	}
	if err != nil {
		return fmt.Errorf("notifying systemd: %w", err)
	}
	return nil
}
