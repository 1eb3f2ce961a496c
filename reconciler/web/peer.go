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

// withPeer stores the user of a socket's connection, as reported by the operating system, in ctx. A
// connection of the site has no user.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	if c, ok := conn.(*net.UnixConn); ok {
		if uid, err := peer(c); err == nil {
			return WithPeer(ctx, userOf(uid))
		}
	}
	return ctx
}

// WithPeer returns the context of a request from a user.
func WithPeer(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, peerKey{}, name)
}

// peerOf returns the user of a request.
func peerOf(r *http.Request) (string, error) {
	if name, _ := r.Context().Value(peerKey{}).(string); name != "" {
		return name, nil
	}
	return "", &Error{Code: http.StatusForbidden, What: "the user of this connection is not known",
		Do: "use the aob command on the server's socket"}
}

// userOf returns the name of a user id.
func userOf(uid uint32) string {
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil && u.Username != "" {
		return u.Username
	}
	return fmt.Sprintf("uid %d", uid)
}
