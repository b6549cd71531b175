"""What paired scores show: intervals, tests, sample sizes, families of tests, and money."""
