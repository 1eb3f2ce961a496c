package delivery

// RunFormat is the format of a run's folder: spec.json and journal.jsonl. It rises when
// an older aob would read the new form wrongly or not at all. A file without a format
// has format 1, which is not written.
const RunFormat = 1

// CheckFormat refuses what a newer aob wrote. Anything else about such a file, as an
// unknown field, is no fault of its author and must not be called one.
func CheckFormat(what string, format, known int) error {
	if format <= known {
		return nil
	}
	return Blockedf("start that aob, or a newer one; docs/upgrades.md says which versions can go back",
		"%s was written by a newer aob: it has format %d, and this aob reads formats up to %d", what, format, known)
}
