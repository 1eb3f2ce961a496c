package web

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/user"
	"strconv"
)

type peerKey struct{}

// withPeer remembers who opened a connection to the socket, by the word of the
// system. A connection to the site has nobody.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	if c, ok := conn.(*net.UnixConn); ok {
		if uid, err := peer(c); err == nil {
			return WithPeer(ctx, userOf(uid))
		}
	}
	return ctx
}

// WithPeer makes a context of a request that comes from a user.
func WithPeer(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, peerKey{}, name)
}

// peerOf returns the user that a request comes from.
func peerOf(r *http.Request) (string, error) {
	if name, _ := r.Context().Value(peerKey{}).(string); name != "" {
		return name, nil
	}
	return "", &Error{Code: http.StatusForbidden, What: "the system does not say which user asks",
		Do: "use the aob command on the server's socket"}
}

// userOf names a user.
func userOf(uid uint32) string {
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil && u.Username != "" {
		return u.Username
	}
	return fmt.Sprintf("uid %d", uid)
}
