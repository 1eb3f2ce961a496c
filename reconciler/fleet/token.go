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

// DeviceToken is the token of one device: RING/DEVICE:HEX. It says whose it is,
// so that a request is checked before its body is read, and HEX is derived from
// the fleet's secret, so that nothing has to be kept for a device.
func DeviceToken(secret, ring, device string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("aob device token v1"))
	for _, name := range []string{ring, device} {
		// With its length before each name, no two pairs give the same bytes.
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(name))))
		mac.Write([]byte(name))
	}
	return ring + "/" + device + ":" + hex.EncodeToString(mac.Sum(nil))
}

// TokenOwner returns whose token this claims to be. It checks nothing.
func TokenOwner(token string) (ring, device string, ok bool) {
	names, sum, ok := strings.Cut(token, ":")
	ring, device, two := strings.Cut(names, "/")
	return ring, device, ok && two && sum != "" && checkName("ring", ring) == nil && checkName("device", device) == nil
}

// Hints for who comes with a token that is not taken.
const (
	hintNone   = "no token: a device sends its own as a bearer token; aob device token FLEET DEVICE prints it"
	hintShared = "this is no device's token: each device has its own now; aob device token FLEET DEVICE prints it"
	hintWrong  = "the token is wrong for the ring and device that it names; aob device token FLEET DEVICE prints the " +
		"right one"
)

// owner checks a request's token. It returns whose it is, or why it is not taken.
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

// authorize answers for a request without a good token, and reports whether it
// had one.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) (ring, device string, ok bool) {
	ring, device, refused := s.owner(r)
	if refused != "" {
		s.refused.Add(1)
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, refused, http.StatusUnauthorized)
		return "", "", false
	}
	return ring, device, true
}

// Guard lets only devices of this server through to a handler: it is for bundles
// and what is signed about them.
func (s *Server) Guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := s.authorize(w, r); ok {
			h.ServeHTTP(w, r)
		}
	})
}

// Seed is derived from the fleet's secret. Salts of rollouts come from it, so that
// nobody can choose a device's name for the first wave.
func Seed(secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("aob rollout seed v1"))
	return hex.EncodeToString(mac.Sum(nil))
}

// checkSecret refuses a secret that can be guessed.
func checkSecret(secret string) error {
	if len(secret) < 16 {
		return delivery.Blockedf("make one with: openssl rand -hex 32",
			"the fleet's secret has %d characters, want at least 16", len(secret))
	}
	return nil
}
