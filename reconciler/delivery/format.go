package delivery

// What AOB writes and reads again later has a format. It is a number that rises
// whenever an older aob would read the new form wrongly or not at all. A file without
// one has format 1, which is not written, so that a file of format 1 stays as it is.
const (
	ReleaseFormat   = 1 // of models/NAME.release.yaml and models/NAME.quarantine.yaml
	RunFormat       = 1 // of a run's folder: spec.json, journal.jsonl
	StatementFormat = 1 // of the predicates of signed statements
	StateFormat     = 1 // of the server's state folder as a whole
)

// CheckFormat refuses what a newer aob wrote. Anything else about such a file, as an
// unknown field, is no fault of its author and must not be called one.
func CheckFormat(what string, format, known int) error {
	if format <= known {
		return nil
	}
	return Blockedf("start that aob, or a newer one; docs/upgrades.md says which versions can go back",
		"%s was written by a newer aob: it has format %d, and this aob reads formats up to %d", what, format, known)
}
