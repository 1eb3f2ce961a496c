package trust_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trust"
)

const payloadType = "application/vnd.in-toto+json"

func sign(t testing.TB, key *trust.Key, payload string) []byte {
	t.Helper()
	envelope, err := trust.Sign(key, payloadType, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

func TestSignThenVerify(t *testing.T) {
	key, stranger := create(t), create(t)
	envelope := sign(t, key, `{"a":1}`)
	if again := sign(t, key, `{"a":1}`); !bytes.Equal(envelope, again) {
		t.Errorf("signing twice gives different bytes:\n%s\n%s", envelope, again)
	}
	trusted := []trust.PublicKey{stranger.Public(), {}, key.Public(), key.Public()}
	payload, by, err := trust.Verify(envelope, payloadType, trusted)
	if err != nil || string(payload) != `{"a":1}` || by != key.ID() {
		t.Errorf("got %q by %q, %v", payload, by, err)
	}
}

// The test computes the signed bytes from the DSSE specification, without the library.
func TestEnvelopeIsDSSE(t *testing.T) {
	key := create(t)
	var e struct {
		PayloadType, Payload string
		Signatures           []struct{ KeyID, Sig string }
	}
	if err := json.Unmarshal(sign(t, key, "hello"), &e); err != nil {
		t.Fatal(err)
	}
	sig, err := base64.StdEncoding.DecodeString(e.Signatures[0].Sig)
	if err != nil {
		t.Fatal(err)
	}
	der := key.Public().PEM()
	lines := strings.Split(string(der), "\n")
	spki, err := base64.StdEncoding.DecodeString(lines[1])
	if err != nil {
		t.Fatal(err)
	}
	signed := fmt.Sprintf("DSSEv1 %d %s 5 hello", len(payloadType), payloadType)
	if !ed25519.Verify(spki[len(spki)-32:], []byte(signed), sig) {
		t.Error("the signature is not over DSSE's pre-authentication encoding")
	}
	if e.Signatures[0].KeyID != key.ID() {
		t.Errorf("key id %q, want %q", e.Signatures[0].KeyID, key.ID())
	}
}

func TestVerifyRefuses(t *testing.T) {
	key, stranger := create(t), create(t)
	good := string(sign(t, key, "hello"))
	trusted := []trust.PublicKey{key.Public()}
	for _, c := range []struct {
		name     string
		envelope string
		trusted  []trust.PublicKey
		want     string
	}{
		{"another key", good, []trust.PublicKey{stranger.Public()}, "trusted are " + stranger.ID()},
		{"a forged key id", strings.ReplaceAll(string(sign(t, stranger, "hello")), stranger.ID(), key.ID()),
			trusted, "trusted are " + key.ID()},
		{"no keys", good, nil, "no key is trusted"},
		{"the zero key", good, []trust.PublicKey{{}}, "no key is trusted"},
		{"another payload", strings.Replace(good, "aGVsbG8=", "aGVsbG9v", 1), trusted, "no trusted key signed it"},
		{"another type", strings.Replace(good, "in-toto", "in-tuto", 1), trusted, `got "application/vnd.in-tuto+json"`},
		{"no signatures", `{"payloadType":"` + payloadType + `","payload":"aGVsbG8=","signatures":[]}`, trusted,
			"want 1 to 16 signatures"},
		{"many signatures", `{"payloadType":"` + payloadType + `","payload":"aGVsbG8=","signatures":[` +
			strings.Repeat(`{},`, 99) + `{}]}`, trusted, "got 100"},
		{"unknown fields", strings.Replace(good, "{", `{"x":1,`, 1), trusted, "not a DSSE envelope"},
		{"data after it", good + "{}", trusted, "there is data after it"},
		{"empty", "", trusted, "not a DSSE envelope"},
		{"null", "null", trusted, "null"},
		{"an array", "[]", trusted, "not a DSSE envelope"},
		{"large", good + strings.Repeat(" ", trust.MaxEnvelope), trusted, "larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			payload, by, err := trust.Verify([]byte(c.envelope), payloadType, c.trusted)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			if payload != nil || by != "" {
				t.Errorf("an error and a payload: %q by %q", payload, by)
			}
		})
	}
}

func TestFlippedBitsAreDetected(t *testing.T) {
	key := create(t)
	good := sign(t, key, "hello")
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			payload, _, err := trust.Verify(bad, payloadType, []trust.PublicKey{key.Public()})
			if err == nil && string(payload) != "hello" {
				t.Fatalf("bit %d of byte %d flipped: accepted with payload %q", bit, i, payload)
			}
		}
	}
}

func TestSignRefuses(t *testing.T) {
	if _, err := trust.Sign(nil, payloadType, nil); err == nil {
		t.Error("signed without a key")
	}
	if _, err := trust.Sign(create(t), "", nil); err == nil {
		t.Error("signed without a type")
	}
	if _, err := trust.Sign(create(t), payloadType, make([]byte, trust.MaxEnvelope)); err == nil ||
		!strings.Contains(err.Error(), "the maximum is") {
		t.Errorf("signed a payload that is too large to verify: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	key := create(f)
	good := sign(f, key, "hello")
	f.Add(good)
	f.Add([]byte(`{"payloadType":"","payload":"","signatures":[{"keyid":"","sig":""}]}`))
	f.Add([]byte(`{"payload":"aGVsbG8_","signatures":null}`))
	f.Fuzz(func(t *testing.T, envelope []byte) {
		payload, by, err := trust.Verify(envelope, payloadType, []trust.PublicKey{key.Public()})
		if err == nil && (string(payload) != "hello" || by != key.ID()) {
			t.Errorf("accepted %q by %q, which was never signed", payload, by)
		}
	})
}

func FuzzParsePublic(f *testing.F) {
	f.Add(create(f).Public().PEM())
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := trust.ParsePublic(data)
		if err != nil {
			return
		}
		for _, k := range keys {
			again, err := trust.ParsePublic(k.PEM())
			if err != nil || len(again) != 1 || again[0].ID() != k.ID() {
				t.Errorf("%v is not equal after encoding and parsing: %v, %v", k, again, err)
			}
		}
	})
}

// A document in a newer format gets its own error, but only if a trusted key signed it.
func TestNewerFormat(t *testing.T) {
	key, stranger := create(t), create(t)
	const known = "application/vnd.aob.desired.v1+json"
	for name, c := range map[string]struct {
		by          *trust.Key
		payloadType string
		want        string
		newer       bool
	}{
		"format 2": {key, "application/vnd.aob.desired.v2+json",
			"the signed document was written by a newer aob: it has format 2, and this aob reads formats up to 1",
			true},
		"an unknown key": {stranger, "application/vnd.aob.desired.v2+json", "no trusted key signed it", false},
		"another kind":   {key, "application/vnd.aob.release.v2+json", "want a payload of type", false},
		"no format":      {key, "application/vnd.aob.desired+json", "want a payload of type", false},
	} {
		envelope, err := trust.Sign(c.by, c.payloadType, []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		payload, _, err := trust.Verify(envelope, known, []trust.PublicKey{key.Public()})
		if err == nil || !strings.Contains(err.Error(), c.want) || payload != nil {
			t.Errorf("%s: %q, %v; want %q", name, payload, err, c.want)
		}
		if _, newer := errors.AsType[delivery.Blocked](err); newer != c.newer {
			t.Errorf("%s: Blocked is %v", name, newer)
		}
	}
}
