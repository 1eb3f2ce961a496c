package fleet

// Waiting returns how many long polls wait, so that tests know when one does.
func (s *Server) Waiting() int64 { return s.waiting.Load() }
