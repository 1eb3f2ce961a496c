package artifact_test

import (
	"fmt"
	"testing"

	"github.com/autonomos/aob/reconciler/artifact"
)

// BenchmarkStore measures listing and attaching with 100 to 30,000 referrers.
func BenchmarkStore(b *testing.B) {
	for _, n := range []int{100, 1000, 10000, 30000} {
		dir := b.TempDir()
		s := open(b, dir)
		digest := push(b, s, "onnx")
		artifact.Grow(b, s, digest, evidenceType, n)
		b.Run(fmt.Sprintf("list unchanged/%d", n), func(b *testing.B) {
			list(b, s)
			for b.Loop() {
				list(b, s)
			}
		})
		b.Run(fmt.Sprintf("open and list/%d", n), func(b *testing.B) {
			for b.Loop() {
				list(b, open(b, dir))
			}
		})
		b.Run(fmt.Sprintf("attach/%d", n), func(b *testing.B) {
			i := 0
			for b.Loop() {
				i++
				if _, err := s.Attach(b.Context(), digest, evidenceType, fmt.Appendf(nil, "bench %d %d", n,
					i)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func list(b *testing.B, s *artifact.Store) {
	found, err := s.Referrers(b.Context(), evidenceType)
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for range found {
		n++
	}
	if n == 0 {
		b.Fatal("nothing listed")
	}
}
