package tuning

// Watermark says when a process that is short of memory takes no more connections, and when it does again. The two levels lie
// apart, so that it does not go to and fro. One goroutine uses it.
type Watermark struct {
	Above float64 // share of the memory from which on there is too little; 0: never
	over  bool
}

// resumeBelow is how far below Above the memory has to fall.
const resumeBelow = 0.05

// Over takes a reading, and says whether connections are to be refused. changed: they were not before, or the other way round.
func (w *Watermark) Over(u Usage) (over, changed bool) {
	was := w.over
	switch share := u.Share(); {
	case w.Above <= 0:
		w.over = false
	case share >= w.Above:
		w.over = true
	case share < w.Above-resumeBelow:
		w.over = false
	}
	return w.over, w.over != was
}
