package trust

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/autonomos/aob/reconciler/delivery"
)

const (
	// MaxEnvelope is the most bytes an envelope may have: 4 MiB, which leaves
	// some 3 MiB for the payload.
	MaxEnvelope = 4 << 20

	maxSignatures = 16
)

// Sign returns an envelope of payload, signed by key. It is compact JSON on one
// line, and the same for the same key, type and payload.
func Sign(key *Key, payloadType string, payload []byte) ([]byte, error) {
	if key == nil {
		return nil, errors.New("sign: no key")
	}
	if payloadType == "" {
		return nil, errors.New("sign: a payload needs a type")
	}
	signer, err := dsse.NewEnvelopeSigner(signer{key})
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	envelope, err := signer.SignPayload(context.Background(), payloadType, payload)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	data, err := json.Marshal(envelope)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if len(data) > MaxEnvelope {
		return nil, fmt.Errorf("sign: the envelope of a %s of %d bytes would have %d bytes, the most is %d",
			payloadType, len(payload), len(data), MaxEnvelope)
	}
	return data, nil
}

// Verify returns the payload of an envelope whose type is payloadType and that
// one of the trusted keys signed, with that key's id. Errors name the keys that
// the envelope claims and those that were tried; they never quote the payload.
// Where a trusted key signed a newer form of the same kind of payload, the error
// is the Blocked of delivery.CheckFormat.
func Verify(envelope []byte, payloadType string, trusted []PublicKey) (payload []byte, keyID string, err error) {
	parsed, err := parse(envelope)
	if err != nil {
		return nil, "", fmt.Errorf("envelope: %w", err)
	}
	newer := delivery.CheckNewer("the signed document", parsed.PayloadType, payloadType)
	if parsed.PayloadType != payloadType && newer == nil {
		return nil, "", fmt.Errorf("envelope: want a payload of type %q, got %q", payloadType, parsed.PayloadType)
	}
	var verifiers []dsse.Verifier
	var tried []string
	seen := map[string]bool{}
	for _, key := range trusted {
		if key.id == "" || seen[key.id] {
			continue
		}
		seen[key.id] = true
		verifiers = append(verifiers, verifier(key))
		tried = append(tried, key.id)
	}
	if len(verifiers) == 0 {
		return nil, "", errors.New("envelope: no key is trusted, so no signature counts; configure at least one")
	}
	threshold, err := dsse.NewEnvelopeVerifier(verifiers...)
	if err != nil {
		return nil, "", fmt.Errorf("envelope: %w", err)
	}
	accepted, payload, err := threshold.VerifyAndDecode(context.Background(), parsed)
	if err != nil || len(accepted) == 0 {
		return nil, "", fmt.Errorf("envelope: no trusted key signed it: it claims %s; tried %s", claimed(parsed),
			strings.Join(tried, ", "))
	}
	if newer != nil {
		return nil, "", newer
	}
	return payload, accepted[0].KeyID, nil
}

// parse reads an envelope strictly: one JSON object of bounded size, known
// fields only, nothing after it, and a bounded number of signatures.
func parse(data []byte) (*dsse.Envelope, error) {
	if len(data) > MaxEnvelope {
		return nil, fmt.Errorf("larger than %d bytes", MaxEnvelope)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var e *dsse.Envelope
	if err := dec.Decode(&e); err != nil {
		return nil, fmt.Errorf("not a DSSE envelope: %w", err)
	}
	if e == nil {
		return nil, errors.New("not a DSSE envelope: null")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("not a DSSE envelope: something follows it")
	}
	if n := len(e.Signatures); n == 0 || n > maxSignatures {
		return nil, fmt.Errorf("want 1 to %d signatures, got %d", maxSignatures, n)
	}
	return e, nil
}

// claimed lists the key ids that an envelope names, shortened where they are
// not ids at all: they are a stranger's words.
func claimed(e *dsse.Envelope) string {
	var ids []string
	for _, s := range e.Signatures {
		id := s.KeyID
		if len(id) > 64 {
			id = id[:64] + "…"
		}
		ids = append(ids, fmt.Sprintf("%q", id))
	}
	return strings.Join(ids, ", ")
}

// signer and verifier give the dsse package our keys.
type signer struct{ key *Key }

func (s signer) Sign(_ context.Context, data []byte) ([]byte, error) {
	return ed25519.Sign(s.key.private, data), nil
}

func (s signer) KeyID() (string, error) { return s.key.ID(), nil }

type verifier PublicKey

func (v verifier) Verify(_ context.Context, data, sig []byte) error {
	if len(sig) != ed25519.SignatureSize || !ed25519.Verify(v.key, data, sig) {
		return errors.New("signature does not match")
	}
	return nil
}

func (v verifier) KeyID() (string, error) { return v.id, nil }

func (v verifier) Public() crypto.PublicKey { return v.key }
