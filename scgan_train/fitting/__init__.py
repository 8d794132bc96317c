"""What every stage is trained by: the loop, its guards, and several processes in step."""
