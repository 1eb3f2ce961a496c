package main

// This file shows and verifies the documents about a release.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/provenance"
	"github.com/autonomos/aob/reconciler/trust"
	"github.com/autonomos/aob/reconciler/web"
)

// paperNames are the names of documents for people, by type.
var paperNames = map[string]string{delivery.ProvenanceType: "SLSA provenance v1", delivery.BOMType: "CycloneDX ML-BOM",
	delivery.CardType: "model card"}

// addPaperCommands adds the commands about documents.
func addPaperCommands(c *cobra.Command) {
	c.AddCommand(query(&cobra.Command{
		Use:   "show MODEL[@VERSION]",
		Short: "Show the documents about a release: provenance, BOM and model card",
		Long: `Show lists the signed documents that are attached to a release's bundle, with the
figures in them. With -o json it prints the documents themselves. It does not verify them:
aob bundle verify does. A release has its documents some seconds after main has accepted
it.`,
		Example: "  aob bundle show shapes@2\n" +
			"  aob bundle show shapes -o json | jq '.documents[1].predicate' >bom.json",
	}, func(c *cobra.Command, api *web.Client, args []string) (any, func(*terminal), error) {
		p, err := readPapers(c.Context(), api, args[0], nil)
		return p, func(t *terminal) { t.papers(p) }, err
	}), query(&cobra.Command{
		Use:   "card MODEL[@VERSION]",
		Short: "Print the model card of a release, in the form of Hugging Face",
		Example: "  aob bundle card shapes@2 >README.md\n" +
			"  aob bundle card shapes -o json | jq -r .text",
	}, func(c *cobra.Command, api *web.Client, args []string) (any, func(*terminal), error) {
		p, err := readPapers(c.Context(), api, args[0], nil)
		if err != nil {
			return nil, nil, err
		}
		var card delivery.Card
		for _, d := range p.Documents {
			if d.Type == delivery.CardType {
				err = json.Unmarshal(d.Predicate, &card)
			}
		}
		return card, func(t *terminal) {
			for line := range strings.Lines(card.Text) {
				t.printf("%s\n", line)
			}
		}, err
	}))
	var key string
	verify := query(&cobra.Command{
		Use:   "verify MODEL[@VERSION]",
		Short: "Verify a release's bundle and the documents about it",
		Long: `With --key FILE, verify reads the bundle and the documents of a release from the
server, and fails if one byte of them is not as it was made and signed: files must match
the bundle's digest, documents must be signed by the key, be about this bundle and this
release, and have the same figures. FILE is the public key of the server's evidence,
which you should have from elsewhere than the server: state/keys/evidence.key.pub.`,
		Example: "  aob bundle verify shapes@2 --key evidence.key.pub\n" +
			"  aob bundle verify shapes --key evidence.key.pub -o json | jq .bundle",
	}, func(c *cobra.Command, api *web.Client, args []string) (any, func(*terminal), error) {
		if key == "" {
			return nil, nil, hinted{errors.New("--key is missing"),
				"name the public key of the server's evidence: state/keys/evidence.key.pub"}
		}
		trusted, err := trust.LoadPublic(key)
		if err != nil {
			return nil, nil, err
		}
		p, err := readPapers(c.Context(), api, args[0], trusted)
		if errors.Is(err, trust.ErrUnsigned) {
			err = hinted{err, "name the key that the server signs evidence with, keys/evidence.key.pub in its state " +
				"folder; if --key is that key, somebody has replaced the document"}
		}
		if err == nil {
			err = verifyFiles(c.Context(), api, p.Released)
		}
		return p, func(t *terminal) {
			t.papers(p)
			t.printf("verified: every byte is as it was made and signed\n")
		}, err
	})
	verify.Flags().StringVar(&key, "key", "", "the `file` of the public key that must have signed the documents")
	c.AddCommand(verify)
}

// papers are the documents about a release.
type papers struct {
	web.Released
	Documents []delivery.Paper    `json:"documents"`
	Figures   []provenance.Figure `json:"figures"`
}

// readPapers reads the documents about a release. It verifies them if keys are given.
func readPapers(ctx context.Context, api *web.Client, what string, keys []trust.PublicKey) (p papers, err error) {
	if p.Released, err = releaseOf(ctx, api, what); err != nil {
		return p, err
	}
	from := artifact.Source{URL: web.BundlesURL, Client: api.HTTP()}
	for _, kind := range delivery.PaperTypes {
		envelopes, err := artifact.Attachments(ctx, from, p.Bundle, evidence.ArtifactType(kind))
		if err != nil {
			return p, err
		}
		found := false
		for _, envelope := range envelopes {
			read := unverifiedPaper
			if keys != nil {
				read = func(kind string, bundle delivery.Digest, envelope []byte) (delivery.Paper, error) {
					return evidence.ReadPaper(kind, bundle, envelope, keys)
				}
			}
			paper, err := read(kind, p.Bundle, envelope)
			if err != nil {
				return p, fmt.Errorf("the %s of bundle %s: %w", paperNames[kind], p.Bundle.Short(), err)
			}
			if paper.Model == p.Model && paper.Version == p.Version && !found {
				p.Documents, found = append(p.Documents, paper), true
			}
		}
		if !found {
			return p, delivery.Blockedf("wait some seconds if main has just accepted it; aob serve writes it",
				"%s@%d has no %s", p.Model, p.Version, paperNames[kind])
		}
	}
	for i, d := range p.Documents {
		figures, err := provenance.Figures(d)
		if err != nil {
			return p, err
		}
		if i > 0 && !slices.Equal(figures, p.Figures) {
			return p, fmt.Errorf("the figures of the %s and of the %s differ", paperNames[p.Documents[0].Type],
				paperNames[d.Type])
		}
		p.Figures = figures
	}
	return p, nil
}

// unverifiedPaper reads a document without its signature.
func unverifiedPaper(kind string, bundle delivery.Digest, envelope []byte) (delivery.Paper, error) {
	var e struct {
		Payload []byte `json:"payload"`
	}
	if err := json.Unmarshal(envelope, &e); err != nil {
		return delivery.Paper{}, err
	}
	return evidence.DecodePaper(kind, bundle, e.Payload)
}

// verifyFiles reads all files of a bundle, which are checked against its digest.
func verifyFiles(ctx context.Context, api *web.Client, r web.Released) (err error) {
	tmp, err := os.MkdirTemp("", "aob-verify-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	_, err = pullBundle(ctx, api, fmt.Sprintf("%s@%d", r.Model, r.Version), delivery.FP32, tmp+"/bundle")
	return err
}

func (t *terminal) papers(p papers) {
	t.printf("%s@%d: bundle %s\n", p.Model, p.Version, p.Bundle)
	names := slices.Sorted(maps.Values(paperNames))
	t.printf("documents: %s\n", strings.Join(names, ", "))
	for _, f := range p.Figures {
		text := f.Value
		if f.Low != "" || f.High != "" {
			text += fmt.Sprintf(" (%s to %s)", f.Low, f.High)
		}
		t.printf("%s\n", delivery.Terminal(fmt.Sprintf("gate %s: %s %s", f.Gate, f.Metric, text)))
	}
	if slices.ContainsFunc(p.Figures, func(f provenance.Figure) bool { return f.Low == "" && f.High == "" }) {
		t.printf("bounds of the others are with the gate's checks, in models/%s.release.yaml\n", p.Model)
	}
}
