package delivery

func (c Classes) Renamed(was map[string]string) Classes { return c }
