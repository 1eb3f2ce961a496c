package serve

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
)

// found is the answer of /v1/detect.
type found struct {
	Model      string      `json:"model"`
	Version    string      `json:"version"`
	Image      imageSize   `json:"image"`
	Detections []detection `json:"detections"`
}

type imageSize struct {
	Width  int `json:"width"`
	Height int `json:"height"`
}

type detection struct {
	Class      string  `json:"class"`
	ClassID    int     `json:"class_id"`
	Confidence float64 `json:"confidence"`
	Left       float64 `json:"left"`
	Top        float64 `json:"top"`
	Width      float64 `json:"width"`
	Height     float64 `json:"height"`
}

// detect is POST /v1/detect.
func (a *API) detect(w http.ResponseWriter, r *http.Request) error {
	b, release, err := a.open(w, r, 1)
	if err != nil {
		return err
	}
	defer release()
	image, err := b.all()
	if err != nil {
		return err
	}
	ctx, facts, model, done, err := a.lease(r)
	if err != nil {
		return err
	}
	defer done()
	filter, err := parseFilter(facts, r.URL.RawQuery)
	if err != nil {
		return err
	}
	all, timing, err := model.Detect(ctx, image, filter.confidence)
	if err != nil {
		kind := r.Header.Get("Content-Type")
		if _, bad := errors.AsType[*detect.ImageError](err); bad && strings.HasPrefix(kind, "multipart/") {
			return invalid("the body is a form, want the image itself, as curl --data-binary @image.jpg sends it")
		}
		return err
	}
	setTiming(w, timing)
	writeJSON(w, http.StatusOK, found{facts.Name, facts.Version, imageSize{all.Width, all.Height},
		delivery.Each(filter.choose(all.Boxes), func(b delivery.Box) detection {
			return detection{b.Class, facts.classID(b.Class), b.Score, b.X, b.Y, b.W, b.H}
		})})
	return nil
}

// parseFilter reads the query of /v1/detect.
func parseFilter(facts *Facts, query string) (filter, error) {
	f := filter{confidence: facts.Confidence}
	values, err := url.ParseQuery(query)
	if err != nil {
		return f, invalid("the query is malformed")
	}
	for name, list := range values {
		if name != "classes" && len(list) != 1 {
			return f, invalid("%.40q is there %d times in the query, want once", name, len(list))
		}
		switch name {
		case "confidence":
			f.confidence, err = score(name, list[0])
		case "max_detections":
			f.most, err = count(name, list[0])
		case "classes":
			for _, text := range list {
				if err == nil {
					err = f.addClasses(facts, text)
				}
			}
		default:
			err = invalid("unknown parameter %.40q; want confidence, classes or max_detections", name)
		}
		if err != nil {
			return f, err
		}
	}
	return f, nil
}
