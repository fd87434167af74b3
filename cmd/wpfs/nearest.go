package main

// nearest finds the valid word that got most likely was meant to be, or "" if
// none is close: at most a third of its letters differ.
func nearest(got string, valid []string) string {
	best, bestDist := "", len(got)/3+1
	for _, v := range valid {
		if d := editDistance(got, v); d <= bestDist && (best == "" || d < bestDist) {
			best, bestDist = v, d
		}
	}
	return best
}

// editDistance counts the letters to insert, remove or replace to make b of a.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diag := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diag, row[j] = row[j], min(row[j]+1, row[j-1]+1, diag+cost)
		}
	}
	return row[len(b)]
}
