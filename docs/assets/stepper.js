// Tells the frame with the recorded run how high it is and which colours the page has.
