package delivery

import "regexp"

// MaxScenePattern is the most characters of a pattern of scenes.
const MaxScenePattern = 500

// ScenePattern reads a pattern for the paths of images, as in (?P<site>cam[0-9]+)_(?P<time>[0-9]{8}_[0-9]{6}).
func ScenePattern(text string) (*regexp.Regexp, error) {
	const do = `use the groups site and time, as in (?P<site>cam[0-9]+)_(?P<time>[0-9]{8}_[0-9]{6})`
	pattern, err := regexp.Compile(text)
	if err != nil {
		return nil, Blockedf(do, "the pattern of scenes: %v", err)
	}
	if pattern.SubexpIndex("site") < 0 && pattern.SubexpIndex("time") < 0 {
		return nil, Blockedf(do, "the pattern of scenes has no group site and no group time")
	}
	return pattern, nil
}
