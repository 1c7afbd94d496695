"""Text in pieces that a voice can say, and audio joined from them."""
