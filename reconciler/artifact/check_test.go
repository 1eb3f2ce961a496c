package artifact_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
)

func TestCheckUnpackedFindsDamage(t *testing.T) {
	s := open(t, t.TempDir())
	bundle := push(t, s, "onnx 1")
	for _, c := range []struct {
		name   string
		damage func(path string) error
		file   string
	}{
		{"truncated", func(path string) error { return os.Truncate(path, 3) }, delivery.ModelFile},
		{"emptied", func(path string) error { return os.Truncate(path, 0) }, delivery.SignatureFile},
		{"zeroed", func(path string) error { return os.WriteFile(path, make([]byte, 6), 0o644) }, delivery.ModelFile},
		{"longer", func(path string) error { return os.WriteFile(path, []byte("onnx 1 and more"), 0o644) },
			delivery.ModelFile},
		{"gone", os.Remove, delivery.GoldenFile},
		{"a folder", func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o755)) },
			delivery.LabelsFile},
		{"the manifest emptied", func(path string) error { return os.Truncate(path, 0) }, artifact.ManifestFile},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "slot")
			if err := s.Unpack(t.Context(), bundle, dir); err != nil {
				t.Fatal(err)
			}
			// Unpacked files are hard links to the store: damage a copy.
			path := filepath.Join(dir, c.file)
			data, err := os.ReadFile(path)
			if err := errors.Join(err, os.Remove(path), os.WriteFile(path, data, 0o644)); err != nil {
				t.Fatal(err)
			}
			if err := artifact.CheckUnpacked(t.Context(), bundle, dir); err != nil {
				t.Fatalf("before the damage: %v", err)
			}
			if err := c.damage(path); err != nil {
				t.Fatal(err)
			}
			var bad *artifact.Damaged
			if err := artifact.CheckUnpacked(t.Context(), bundle, dir); !errors.As(err, &bad) ||
				!slices.Equal(bad.Files, []string{c.file}) {
				t.Errorf("got %v, want damage of %s", err, c.file)
			}
		})
	}
	dir := filepath.Join(t.TempDir(), "slot")
	if err := errors.Join(s.Unpack(t.Context(), bundle, dir),
		os.Remove(filepath.Join(dir, artifact.ManifestFile))); err != nil {
		t.Fatal(err)
	}
	if err := artifact.CheckUnpacked(t.Context(), bundle, dir); !errors.Is(err, artifact.ErrUnchecked) {
		t.Errorf("without a manifest: %v", err)
	}
}

func TestCheckListsDamagedBlobs(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	bundle, other := push(t, s, "onnx 1"), push(t, s, "onnx 2")
	if err := s.Check(t.Context(), bundle); err != nil {
		t.Fatal(err)
	}
	model := filepath.Join(dir, "blobs", "sha256", delivery.Sum([]byte("onnx 1")).Hex())
	for name, damage := range map[string]func() error{
		"damaged": func() error { replace(t, model, []byte("onnx X")); return nil },
		"gone":    func() error { return os.Remove(model) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		var bad *artifact.Damaged
		if err := s.Check(t.Context(), bundle); !errors.As(err, &bad) || len(bad.Files) != 1 ||
			bad.Files[0] != "model.onnx ("+model+")" {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.Check(t.Context(), other); err != nil {
			t.Errorf("%s: the other bundle: %v", name, err)
		}
		replace(t, model, []byte("onnx 1"))
	}
	if err := os.Remove(filepath.Join(dir, "blobs", "sha256", bundle.Hex())); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context(), bundle); err == nil {
		t.Error("no error for a bundle without its manifest")
	}
}
