// Package provenance writes the documents about a release from one record: how it was made, as SLSA provenance v1; what
// it consists of and how good it is, as a CycloneDX ML-BOM; and a model card in the form of Hugging Face.
//
// [Documents] returns the three. They are functions of the [Record] alone, without a clock, so the same release gives
// the same bytes. [Figures] reads the figures of one of them back: they are those of the release file in all three.
package provenance
