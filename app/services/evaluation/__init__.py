"""What every evaluation needs: expressions, memberships, progress."""
