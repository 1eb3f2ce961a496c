package delivery

import (
	"regexp"
	"regexp/syntax"
)

// MaxScenePattern is the most characters of a pattern of scenes.
const MaxScenePattern = 500

// maxSceneSteps is how many steps the program of a pattern may have. A path costs as many for each character, and a
// pull request chooses the pattern.
const maxSceneSteps = 1000

// ScenePattern reads a pattern for the paths of images, as in (?P<site>cam[0-9]+)_(?P<time>[0-9]{8}_[0-9]{6}).
func ScenePattern(text string) (*regexp.Regexp, error) {
	const do = `use the groups site and time, as in (?P<site>cam[0-9]+)_(?P<time>[0-9]{8}_[0-9]{6})`
	pattern, err := regexp.Compile(text)
	if err != nil {
		return nil, Blockedf(do, "the pattern of scenes: %v", err)
	}
	if parsed, err := syntax.Parse(text, syntax.Perl); err == nil {
		if program, err := syntax.Compile(parsed.Simplify()); err == nil && len(program.Inst) > maxSceneSteps {
			return nil, Blockedf("use fewer and smaller repetitions, as + in place of {1,500}",
				"the pattern of scenes is too complex")
		}
	}
	if pattern.SubexpIndex("site") < 0 && pattern.SubexpIndex("time") < 0 {
		return nil, Blockedf(do, "the pattern of scenes has no group site and no group time")
	}
	return pattern, nil
}
