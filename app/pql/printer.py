"""x"""
def print_tree(tree): return ""
