package intent

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// LockFile is the name of the file in versions/VERSION of a trainer with the packages of its environment: a
// requirements.txt of pip, in which each package has one version and the SHA-256 of its files.
const LockFile = "requirements.txt"

// VersionsFolder is the folder of a trainer that has a folder for each version, with its schema.json and its
// requirements.txt.
const VersionsFolder = "versions"

// maxLock is the size of the largest lock file that is read.
const maxLock = 4 << 20

var lockedPackage = regexp.MustCompile(
	`^[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[A-Za-z0-9._, -]+\])?==[A-Za-z0-9][A-Za-z0-9.!+_-]*(?: *;[^#]*?)?` +
		`(?: +--hash=sha256:[0-9a-f]{64})+$`)

// ParseLock checks a lock file and returns its digest. It takes packages with one version and hashes alone: no options,
// as of an index, and no addresses, because both decide what is installed, and an address may have a password.
func ParseLock(file string, data []byte) (delivery.Digest, []delivery.Complaint) {
	var list []delivery.Complaint
	complain := func(line int, text string) {
		if len(list) < maxComplaints {
			list = append(list, delivery.Complaint{File: file, Line: line, Column: min(line, 1), Text: text})
		}
	}
	if len(data) > maxLock {
		complain(0, "is too large; want at most 4 MiB")
		return "", list
	}
	packages := 0
	var entry strings.Builder // the lines of one package, which a backslash joins
	first := 0
	for i, line := range strings.Split(string(data)+"\n", "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			line = ""
		}
		text, goesOn := strings.CutSuffix(line, `\`)
		if entry.Len() == 0 {
			first = i + 1
		}
		entry.WriteString(strings.TrimSpace(text) + " ")
		if goesOn {
			continue
		}
		switch text := strings.TrimSpace(entry.String()); {
		case text == "":
		case !lockedPackage.MatchString(text): // the text may be an address with a password, so it is not repeated
			complain(first, "want a package with one version and hashes, NAME==VERSION --hash=sha256:…; write the "+
				"file with uv pip compile --universal --generate-hashes")
		default:
			packages++
		}
		entry.Reset()
	}
	if packages == 0 && len(list) == 0 {
		complain(0, "has no package; write it with uv pip compile --universal --generate-hashes")
	}
	sum := sha256.Sum256(data)
	return delivery.Digest("sha256:" + hex.EncodeToString(sum[:])), list
}
