package evidence

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trust"
)

// Documents about releases are statements too. Nothing is decided by them, so Load does not read them.
var (
	provenance = kind{delivery.ProvenanceType, "application/vnd.aob.provenance.v1+json", paper(delivery.ProvenanceType,
		func(p struct {
			BuildDefinition struct {
				ExternalParameters struct {
					Model   string `json:"model"`
					Version int    `json:"version"`
				} `json:"externalParameters"`
			} `json:"buildDefinition"`
		}) (string, int) {
			return p.BuildDefinition.ExternalParameters.Model, p.BuildDefinition.ExternalParameters.Version
		})}
	bom = kind{delivery.BOMType, "application/vnd.aob.bom.v1+json", paper(delivery.BOMType,
		func(p struct {
			Metadata struct {
				Component struct {
					Name    string `json:"name"`
					Version string `json:"version"`
				} `json:"component"`
			} `json:"metadata"`
		}) (string, int) {
			version, _ := strconv.Atoi(p.Metadata.Component.Version)
			return p.Metadata.Component.Name, version
		})}
	card = kind{delivery.CardType, "application/vnd.aob.card.v1+json", paper(delivery.CardType,
		func(p delivery.Card) (string, int) { return p.Model, p.Version })}

	paperKinds = []kind{provenance, bom, card}
)

// paper reads a document. release returns the release that it is about.
func paper[T any](predicateType string, release func(T) (model string, version int)) func(json.RawMessage) (any,
	delivery.Digest, error) {
	return func(data json.RawMessage) (any, delivery.Digest, error) {
		var v T
		if err := json.Unmarshal(data, &v); err != nil {
			return nil, "", err
		}
		p := &delivery.Paper{Type: predicateType, Predicate: data}
		p.Model, p.Version = release(v)
		return p, "", required("model", p.Model)
	}
}

// Papers returns the valid documents about a bundle, in the order of their types.
func (s *Store) Papers(ctx context.Context, bundle delivery.Digest) (papers []delivery.Paper, err error) {
	for _, k := range paperKinds {
		list, err := s.bundles.Attached(ctx, bundle, k.artifactType)
		if err != nil {
			return nil, fmt.Errorf("read documents: %w", err)
		}
		for _, a := range list {
			if st, _ := s.readStatement(ctx, k, bundle, a.Referrer); st.why == "" {
				papers = append(papers, *st.value.(*delivery.Paper))
			}
		}
	}
	return papers, ctx.Err()
}

// ReadPaper verifies and reads one document about a bundle. It is stricter than other readers: an envelope with any
// other byte than those that were signed and written is an error.
func ReadPaper(predicateType string, bundle delivery.Digest, envelope []byte,
	trusted []trust.PublicKey) (delivery.Paper, error) {
	payload, key, err := trust.Verify(envelope, delivery.StatementPayload, trusted)
	if err != nil {
		return delivery.Paper{}, err
	}
	if err := trust.Exact(envelope, payload, key); err != nil {
		return delivery.Paper{}, err
	}
	return DecodePaper(predicateType, bundle, payload)
}

// DecodePaper reads the payload of a document about a bundle, whose signature it does not see.
func DecodePaper(predicateType string, bundle delivery.Digest, payload []byte) (delivery.Paper, error) {
	i := slices.IndexFunc(paperKinds, func(k kind) bool { return k.predicateType == predicateType })
	if i < 0 {
		return delivery.Paper{}, fmt.Errorf("unknown type of document %q", predicateType)
	}
	value, _, err := decodeStatement(paperKinds[i], bundle, payload)
	if err != nil {
		return delivery.Paper{}, err
	}
	return *value.(*delivery.Paper), nil
}
