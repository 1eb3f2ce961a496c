package fleet

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// DeviceToken returns the token of a device: RING/DEVICE:HEX. It names its owner, so that a request can be checked
// before its body is read. HEX is derived from the fleet's secret, so that nothing has to be stored per device.
func DeviceToken(secret, ring, device string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("aob device token v1"))
	for _, name := range []string{ring, device} {
		// The length before each name makes the input unambiguous.
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(name))))
		mac.Write([]byte(name))
	}
	return ring + "/" + device + ":" + hex.EncodeToString(mac.Sum(nil))
}

// TokenOwner returns the ring and device that a token names. It does not verify the token.
func TokenOwner(token string) (ring, device string, ok bool) {
	names, sum, ok := strings.Cut(token, ":")
	ring, device, two := strings.Cut(names, "/")
	return ring, device, ok && two && sum != "" && checkName("ring", ring) == nil && checkName("device", device) == nil
}

// Responses to a request without a valid token.
const (
	hintNone   = "no token: send the device's token as bearer token; aob device token FLEET DEVICE prints it"
	hintShared = "this is not a device token: each device has its own; aob device token FLEET DEVICE prints it"
	hintWrong  = "the token is wrong for the ring and device that it names; aob device token FLEET DEVICE prints the " +
		"right one"
)

// owner verifies a request's token. It returns the token's owner, or why the token is refused.
func (s *Server) owner(r *http.Request) (ring, device, refused string) {
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !bearer || token == "" {
		return "", "", hintNone
	}
	ring, device, ok := TokenOwner(token)
	if !ok {
		return "", "", hintShared
	}
	if !hmac.Equal([]byte(token), []byte(DeviceToken(s.Secret, ring, device))) {
		return "", "", hintWrong
	}
	return ring, device, ""
}

// authorize answers a request without a valid token with 401. ok reports whether the token was valid.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) (ring, device string, ok bool) {
	ring, device, refused := s.owner(r)
	if refused != "" {
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, refused, http.StatusUnauthorized)
		return "", "", false
	}
	return ring, device, true
}

// Guard wraps a handler so that only requests with a valid device token reach it. It protects bundles
// and the statements about them.
func (s *Server) Guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := s.authorize(w, r); ok {
			h.ServeHTTP(w, r)
		}
	})
}

// Seed returns a secret for the salts of rollouts, derived from the fleet's secret. Without it nobody
// can choose a device name that gets into a first wave.
func Seed(secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("aob rollout seed v1"))
	return hex.EncodeToString(mac.Sum(nil))
}

// checkSecret refuses a secret that is too short.
func checkSecret(secret string) error {
	if len(secret) < 16 {
		return delivery.Blockedf("make one with: openssl rand -hex 32",
			"the fleet's secret has %d characters; want at least 16", len(secret))
	}
	return nil
}
