package delivery

import (
	"encoding/json"
	"fmt"
)

// A Dataset is a reference to a dataset, written in YAML and JSON as {SOURCE: PATH}.
// SOURCE is a kind of storage that the server supports, such as dir. The first part of
// PATH is a name in the server's configuration. A reference is never a URL.
type Dataset struct {
	Source string
	Path   string // NAME, or NAME/sub/folder
}

func (d Dataset) String() string {
	if d.Source == "" {
		return "none"
	}
	return d.Source + ":" + d.Path
}

// MarshalJSON writes {SOURCE: PATH}.
func (d Dataset) MarshalJSON() ([]byte, error) {
	if d.Source == "" {
		return []byte("{}"), nil
	}
	return json.Marshal(map[string]string{d.Source: d.Path})
}

// UnmarshalJSON reads {SOURCE: PATH}.
func (d *Dataset) UnmarshalJSON(data []byte) error {
	var m map[string]string
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("dataset: %w", err)
	}
	if len(m) > 1 {
		return fmt.Errorf("dataset: want one source, got %d", len(m))
	}
	*d = Dataset{}
	for source, path := range m {
		*d = Dataset{source, path}
	}
	return nil
}
